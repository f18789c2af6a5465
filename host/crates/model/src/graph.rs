//! Questions about directed graphs: cycles, descendants, ancestors, an order.
//!
//! A graph is a list of adjacency lists: `edges[a]` names the nodes that `a` leads to. Nodes outside of the list are ignored,
//! so that a graph with unresolved names can be asked too. Everything is iterative and linear: depth is the caller's data.

/// One cycle for each strongly connected component that has any: the shortest through the component's lowest node, starting
/// there. The first node is not repeated at the end; a node that leads to itself is a cycle of one. Ordered by first node.
pub fn find_cycles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let component_of = components(edges);
    let mut lowest = vec![usize::MAX; edges.len()];
    for (node, component) in component_of.iter().enumerate() {
        if let Some(low) = lowest.get_mut(*component) {
            *low = (*low).min(node);
        }
    }
    let mut cycles: Vec<Vec<usize>> = lowest
        .into_iter()
        .filter(|node| *node != usize::MAX)
        .filter_map(|start| shortest_cycle(edges, &component_of, start))
        .collect();
    cycles.sort_unstable();
    cycles
}

/// All nodes that can be reached from `starts` by at least one edge, ascending. A start is among them only if it can be
/// reached from a start.
pub fn descendants(edges: &[Vec<usize>], starts: &[usize]) -> Vec<usize> {
    let mut seen = vec![false; edges.len()];
    let mut stack: Vec<usize> = starts.to_vec();
    while let Some(node) = stack.pop() {
        for &next in edges.get(node).into_iter().flatten() {
            if let Some(seen) = seen.get_mut(next)
                && !std::mem::replace(seen, true)
            {
                stack.push(next);
            }
        }
    }
    seen.iter()
        .enumerate()
        .filter_map(|(node, seen)| seen.then_some(node))
        .collect()
}

/// All nodes that lead to one of `ends` by at least one edge, ascending.
pub fn ancestors(edges: &[Vec<usize>], ends: &[usize]) -> Vec<usize> {
    descendants(&reversed(edges), ends)
}

/// The graph with every edge turned round.
pub fn reversed(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut reversed = vec![Vec::new(); edges.len()];
    for (from, targets) in edges.iter().enumerate() {
        for &to in targets {
            if let Some(sources) = reversed.get_mut(to) {
                sources.push(from);
            }
        }
    }
    reversed
}

/// The nodes in an order that respects the edges, lowest first where there is a choice of level; `None` if there is a cycle.
pub fn topological_order(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut waiting_for = vec![0_usize; edges.len()];
    for &to in edges.iter().flatten() {
        if let Some(count) = waiting_for.get_mut(to) {
            *count += 1;
        }
    }
    let mut order: Vec<usize> = (0..edges.len()).filter(|node| waiting_for[*node] == 0).collect();
    let mut next = 0;
    while let Some(&node) = order.get(next) {
        next += 1;
        for &to in &edges[node] {
            if let Some(count) = waiting_for.get_mut(to) {
                *count -= 1;
                if *count == 0 {
                    order.push(to);
                }
            }
        }
    }
    (order.len() == edges.len()).then_some(order)
}

/// For each pair whether its first node leads to its second by at least one edge. Where there is a cycle nothing is asked: all do.
///
/// A search for each would be the square of the graph: 64 first nodes are followed at a time, with one word a node.
pub fn leads_to(edges: &[Vec<usize>], pairs: &[(usize, usize)]) -> Vec<bool> {
    let Some(order) = topological_order(edges) else {
        return vec![true; pairs.len()];
    };
    let mut answers = vec![false; pairs.len()];
    let mut by_first: Vec<usize> = (0..pairs.len()).collect();
    by_first.sort_unstable_by_key(|at| pairs[*at].0);
    let mut marks = vec![0_u64; edges.len()];
    let mut reached = vec![0_u64; edges.len()];
    let mut rest = by_first.as_slice();
    while !rest.is_empty() {
        // The pairs of the next 64 first nodes, and the bit of each node.
        let mut firsts: Vec<usize> = Vec::new();
        let mut taken = 0;
        for at in rest {
            let first = pairs[*at].0;
            if firsts.last() != Some(&first) {
                if firsts.len() == 64 {
                    break;
                }
                if let Some(mark) = marks.get_mut(first) {
                    *mark = 1 << firsts.len();
                }
                firsts.push(first);
            }
            taken += 1;
        }
        let (block, more) = rest.split_at(taken);
        rest = more;
        reached.fill(0);
        for &node in &order {
            let bits = reached[node] | marks[node];
            if bits != 0 {
                for &to in &edges[node] {
                    if let Some(reached) = reached.get_mut(to) {
                        *reached |= bits;
                    }
                }
            }
        }
        for &at in block {
            let (first, second) = pairs[at];
            let mark = marks.get(first).copied().unwrap_or(0);
            answers[at] = reached.get(second).is_some_and(|bits| bits & mark != 0);
        }
        for first in firsts {
            if let Some(mark) = marks.get_mut(first) {
                *mark = 0;
            }
        }
    }
    answers
}

/// For each node the number of its strongly connected component (Tarjan, with the stack on the heap).
fn components(edges: &[Vec<usize>]) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let nodes = edges.len();
    let (mut index, mut low, mut component_of) = (vec![NONE; nodes], vec![0; nodes], vec![NONE; nodes]);
    let (mut open, mut calls) = (Vec::new(), Vec::new());
    let (mut next_index, mut next_component) = (0, 0);
    for root in 0..nodes {
        if index[root] != NONE {
            continue;
        }
        calls.push((root, 0));
        while let Some((node, edge)) = calls.pop() {
            if edge == 0 {
                index[node] = next_index;
                low[node] = next_index;
                next_index += 1;
                open.push(node);
            }
            if let Some(&to) = edges[node].get(edge) {
                calls.push((node, edge + 1));
                if to >= nodes {
                    continue;
                }
                if index[to] == NONE {
                    calls.push((to, 0));
                } else if component_of[to] == NONE {
                    low[node] = low[node].min(index[to]);
                }
                continue;
            }
            if low[node] == index[node] {
                while let Some(member) = open.pop() {
                    component_of[member] = next_component;
                    if member == node {
                        break;
                    }
                }
                next_component += 1;
            }
            if let Some(&(parent, _)) = calls.last() {
                low[parent] = low[parent].min(low[node]);
            }
        }
    }
    component_of
}

/// The shortest way from `start` back to itself within its component, by breadth.
fn shortest_cycle(edges: &[Vec<usize>], component_of: &[usize], start: usize) -> Option<Vec<usize>> {
    let mut came_from = std::collections::HashMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for &to in &edges[node] {
            if to == start {
                let mut path = vec![node];
                let mut at = node;
                while at != start {
                    at = came_from[&at];
                    path.push(at);
                }
                path.reverse();
                return Some(path);
            }
            if component_of.get(to) == component_of.get(start) && !came_from.contains_key(&to) {
                came_from.insert(to, node);
                queue.push_back(to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_component_reports_one_cycle() {
        let edges = vec![vec![1], vec![2], vec![0, 3], vec![4], vec![3, 5], vec![5], vec![0]];
        assert_eq!(find_cycles(&edges), vec![vec![0, 1, 2], vec![3, 4], vec![5]]);
        assert_eq!(topological_order(&edges), None);
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let mut edges: Vec<Vec<usize>> = (0..200_000).map(|node| vec![node + 1]).collect();
        edges.push(Vec::new());
        assert!(find_cycles(&edges).is_empty());
        assert_eq!(descendants(&edges, &[0]).len(), 200_000);
        assert_eq!(ancestors(&edges, &[200_000]).len(), 200_000);
        edges[200_000].push(0);
        assert_eq!(find_cycles(&edges).len(), 1);
    }

    #[test]
    fn unresolved_nodes_are_ignored() {
        assert!(find_cycles(&[vec![7], vec![0, 9]]).is_empty());
        assert_eq!(descendants(&[vec![7, 1], vec![]], &[0, 5]), vec![1]);
    }

    fn graph() -> impl Strategy<Value = Vec<Vec<usize>>> {
        (1_usize..12).prop_flat_map(|n| prop::collection::vec(prop::collection::vec(0..n, 0..4), n))
    }

    proptest! {
        #[test]
        fn cycles_are_cycles_and_none_is_missed(edges in graph()) {
            let cycles = find_cycles(&edges);
            for cycle in &cycles {
                for (at, node) in cycle.iter().enumerate() {
                    prop_assert!(edges[*node].contains(&cycle[(at + 1) % cycle.len()]));
                }
            }
            // A node lies on a cycle if it reaches itself; its component's cycle reaches it and is reached by it.
            for node in 0..edges.len() {
                if descendants(&edges, &[node]).contains(&node) {
                    prop_assert!(cycles.iter().any(|cycle| cycle.contains(&node)
                        || (descendants(&edges, &[node]).contains(&cycle[0])
                            && descendants(&edges, &[cycle[0]]).contains(&node))));
                }
            }
            prop_assert_eq!(cycles.is_empty(), topological_order(&edges).is_some());
        }

        #[test]
        fn pairs_are_answered_as_a_search_answers_them(
            arrows in prop::collection::vec((0..150_usize, 0..150_usize), 0..300),
            pairs in prop::collection::vec((0..152_usize, 0..152_usize), 0..400),
        ) {
            let mut edges = vec![Vec::new(); 150];
            for (a, b) in arrows {
                // Against the numbering, so that the order has to be found; no cycle can come of it.
                if a > b { edges[a].push(b); }
            }
            let answers = leads_to(&edges, &pairs);
            for ((first, second), answer) in pairs.iter().zip(answers) {
                prop_assert_eq!(answer, descendants(&edges, &[*first]).contains(second));
            }
        }

        #[test]
        fn ancestors_mirror_descendants(edges in graph()) {
            for node in 0..edges.len() {
                for below in descendants(&edges, &[node]) {
                    prop_assert!(ancestors(&edges, &[below]).contains(&node));
                }
            }
        }
    }
}
