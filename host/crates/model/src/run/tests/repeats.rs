//! Mapped tasks, mapped groups and loops, from a manifest to the end of the run.

use super::*;
use crate::manifest::{Components, ResolvedComponent, compile, parse};
use crate::run::Known;

/// A DAG of tasks that all have one component; `{}` in the tasks stands for it.
fn compiled(tasks: &str) -> Arc<Dag> {
    let component = format!("\"sha256:{}\"", "0".repeat(64));
    let source = format!(
        "dag: d\nparams: {{names: [x, y]}}\ntasks:\n{}",
        tasks.replace("C", &component)
    );
    let manifest = parse(&source).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let descriptor = serde_json::json!({"format": 1, "tasks": [{"name": "t", "input": true, "output": true}]});
    let components: Components = manifest
        .components()
        .into_iter()
        .map(|component| {
            let resolved = ResolvedComponent {
                digest: component.value.digest().unwrap(),
                descriptor: serde_json::from_value(descriptor.clone()).unwrap(),
            };
            (component.value, Ok(resolved))
        })
        .collect();
    Arc::new(
        compile(&manifest, &components)
            .unwrap_or_else(|errors| panic!("{errors:#?}"))
            .dag,
    )
}

pub(super) struct Repeats {
    pub(super) world: World,
}

impl Repeats {
    pub(super) fn of(tasks: &str) -> Self {
        let dag = compiled(tasks);
        let lengths = crate::params::param_lengths(&dag, &serde_json::json!({"names": ["x", "y"]}));
        let mut world = World {
            run: RunState::with_params(DagRunKey(7), dag, START, START, &lengths),
            now: START,
        };
        world.send(Event::Start);
        Self { world }
    }

    pub(super) fn index(&self, task: &str) -> TaskIndex {
        self.world
            .run
            .dag()
            .index_of(task)
            .unwrap_or_else(|| panic!("no task {task}"))
    }

    /// Runs one task instance to its end, and checks that the run can be stored and restored at any time.
    pub(super) fn execute(&mut self, task: &str, map_index: i32, end: TryEnd, measured: &[u32]) {
        let (task, map_index) = (self.index(task), MapIndex(map_index));
        self.world.send(Event::Admit { task, map_index });
        let dispatch = self.world.run.ti(task, map_index).expect("it is there").dispatch;
        self.world.send(Event::TryFinished {
            task,
            map_index,
            dispatch,
            end,
            measured: measured.to_vec(),
            started_at: self.world.now,
            ended_at: self.world.now,
        });
        let run = &self.world.run;
        let mut restored = RunState::restore(run.key(), run.dag().clone(), run.snapshot());
        advance(&mut restored, Event::Resume, self.world.now);
        assert_eq!(states(&restored), states(run), "a restored run is the same");
        assert_eq!(restored.state(), run.state());
    }

    pub(super) fn done(&mut self, task: &str, map_index: i32, measured: &[u32]) {
        self.execute(task, map_index, TryEnd::Done, measured);
    }

    pub(super) fn ready(&self) -> Vec<String> {
        let mut ready: Vec<String> = self
            .world
            .run
            .ready()
            .map(|(task, map_index, _)| name(&self.world.run, task, map_index))
            .collect();
        ready.sort();
        ready
    }

    pub(super) fn state(&self, task: &str, map_index: i32) -> TaskInstanceState {
        let ti = self.world.run.ti(self.index(task), MapIndex(map_index));
        ti.unwrap_or_else(|| panic!("no {task}[{map_index}]")).state
    }
}

fn name(run: &RunState, task: TaskIndex, map_index: MapIndex) -> String {
    format!("{}[{}]", run.dag().task(task).unwrap().id, map_index.0)
}

fn states(run: &RunState) -> Vec<(String, TaskInstanceState)> {
    let mut states: Vec<_> = run
        .tis()
        .map(|(task, map_index, ti)| (name(run, task, map_index), ti.state))
        .collect();
    states.sort();
    states
}

const MAPPED: &str = "
  plan: {component: C, task: t}
  work:
    component: C
    task: t
    expand: {job: \"{{ xcom.plan.jobs }}\", size: [1, 2]}
  sum: {component: C, task: t, input: {all: \"{{ xcom.work }}\"}}
";

#[test]
fn a_product_is_expanded_when_its_source_is_known() {
    let mut run = Repeats::of(MAPPED);
    assert_eq!(run.state("work", -1), TaskInstanceState::NoStatus);
    run.done("plan", -1, &[3]);
    assert_eq!(run.ready(), (0..6).map(|at| format!("work[{at}]")).collect::<Vec<_>>());
    let mut known = Known::default();
    let elements = run.world.run.elements(run.index("work"), MapIndex(3), &mut known);
    assert_eq!(elements.len(), 1);
    let indexes: Vec<u32> = elements[0].elements.iter().map(|of| of.index).collect();
    assert_eq!(indexes, [1, 1]);
    for at in 0..6 {
        assert_eq!(run.state("sum", -1), TaskInstanceState::NoStatus);
        run.done("work", at, &[]);
    }
    run.done("sum", -1, &[]);
    assert_eq!(run.world.run.state(), DagRunState::Success);
}

#[test]
fn nothing_to_map_over_skips_and_a_failed_source_fails() {
    let mut run = Repeats::of(MAPPED);
    run.done("plan", -1, &[0]);
    assert_eq!(run.state("work", -1), TaskInstanceState::Skipped);
    assert_eq!(run.state("sum", -1), TaskInstanceState::Skipped);

    let mut run = Repeats::of(MAPPED);
    let end = TryEnd::Failed {
        cause: Cause::Failed,
        fatal: true,
        code: None,
    };
    run.execute("plan", -1, end, &[]);
    assert_eq!(run.state("work", -1), TaskInstanceState::UpstreamFailed);
    assert_eq!(run.world.run.state(), DagRunState::Failed);
}

#[test]
fn more_than_the_limit_is_a_failure() {
    let mut run = Repeats::of(&MAPPED.replace("expand:", "map_limit: 5\n    expand:"));
    run.done("plan", -1, &[3]);
    assert_eq!(run.state("work", -1), TaskInstanceState::Failed);
    assert_eq!(run.world.run.state(), DagRunState::Failed);
}

#[test]
fn what_a_cleared_source_maps_over_may_be_more_or_less() {
    for (length, expected) in [(4, 8), (1, 2)] {
        let mut run = Repeats::of(MAPPED);
        run.done("plan", -1, &[3]);
        for at in 0..6 {
            run.done("work", at, &[]);
        }
        let mut all = vec![
            (run.index("plan"), MapIndex::UNMAPPED),
            (run.index("sum"), MapIndex::UNMAPPED),
        ];
        all.extend((0..6).map(|at| (run.index("work"), MapIndex(at))));
        run.world.send(Event::Clear { task_instances: all });
        run.done("plan", -1, &[length]);
        assert_eq!(run.ready().len(), expected);
        for at in 0..i32::try_from(expected).unwrap() {
            run.done("work", at, &[]);
        }
        if length == 1 {
            assert_eq!(run.state("work", 5), TaskInstanceState::Removed);
        }
        run.done("sum", -1, &[]);
        assert_eq!(run.world.run.state(), DagRunState::Success);
    }
}

#[test]
fn in_a_mapped_group_elements_go_their_own_way() {
    let mut run = Repeats::of(
        "
  list: {component: C, task: t}
  each:
    expand: {file: \"{{ xcom.list }}\"}
    tasks:
      load: {component: C, task: t, input: {file: \"{{ item.file }}\"}}
      clean: {component: C, task: t, input: {rows: \"{{ xcom.load }}\"}}
  all: {component: C, task: t, after: [each], trigger_rule: none_failed}
",
    );
    assert_eq!(run.state("each.clean", -1), TaskInstanceState::NoStatus);
    run.done("list", -1, &[3]);
    assert_eq!(run.ready(), ["each.load[0]", "each.load[1]", "each.load[2]"]);
    run.done("each.load", 1, &[]);
    assert_eq!(run.ready(), ["each.clean[1]", "each.load[0]", "each.load[2]"]);
    let clean = run.index("each.clean");
    let sees = run.world.run.visible(clean, MapIndex(1), run.index("each.load"));
    assert_eq!(sees, [MapIndex(1)]);
    run.execute("each.load", 0, TryEnd::Skip, &[]);
    assert_eq!(run.state("each.clean", 0), TaskInstanceState::Skipped);
    run.done("each.clean", 1, &[]);
    run.done("each.load", 2, &[]);
    assert_eq!(run.state("all", -1), TaskInstanceState::NoStatus);
    run.done("each.clean", 2, &[]);
    run.done("all", -1, &[]);
    assert_eq!(run.world.run.state(), DagRunState::Success);
}

const LOOP: &str = "
  start: {component: C, task: t}
  solve:
    after: [start]
    loop: {until: \"{{ xcom.check.done }}\", max: 3}
    tasks:
      step: {component: C, task: t, input: {state: \"{{ previous.step | default(none) }}\"}}
      check: {component: C, task: t, input: {state: \"{{ xcom.step }}\"}}
  end: {component: C, task: t, input: {state: \"{{ xcom['solve.step'] }}\"}}
";

#[test]
fn a_loop_goes_round_until_its_condition_holds() {
    let mut run = Repeats::of(LOOP);
    run.done("start", -1, &[]);
    for iteration in 0..2 {
        assert_eq!(run.ready(), [format!("solve.step[{iteration}]")]);
        run.done("solve.step", iteration, &[]);
        run.done("solve.check", iteration, &[u32::from(iteration == 1)]);
    }
    let run_state = &run.world.run;
    let (step, end) = (run.index("solve.step"), run.index("end"));
    assert_eq!(run_state.previous(step, MapIndex(1), step), [MapIndex(0)]);
    assert!(run_state.previous(step, MapIndex(0), step).is_empty());
    assert_eq!(
        run_state.visible(end, MapIndex::UNMAPPED, step),
        [MapIndex(1)],
        "the last iteration"
    );
    assert_eq!(run_state.iteration(step, MapIndex(1)), Some(1));
    run.done("end", -1, &[]);
    assert_eq!(run.world.run.state(), DagRunState::Success);
}

#[test]
fn a_loop_ends_at_its_maximum_or_with_a_failure() {
    let mut run = Repeats::of(LOOP);
    run.done("start", -1, &[]);
    for iteration in 0..3 {
        run.done("solve.step", iteration, &[]);
        run.done("solve.check", iteration, &[0]);
    }
    assert_eq!(run.ready(), ["end[-1]"]);

    let mut run = Repeats::of(LOOP);
    run.done("start", -1, &[]);
    let end = TryEnd::Failed {
        cause: Cause::Failed,
        fatal: true,
        code: None,
    };
    run.execute("solve.step", 0, end, &[]);
    assert_eq!(run.state("end", -1), TaskInstanceState::UpstreamFailed);
    assert_eq!(run.world.run.state(), DagRunState::Failed);
}

#[test]
fn clearing_an_iteration_takes_back_those_after_it() {
    let mut run = Repeats::of(LOOP);
    run.done("start", -1, &[]);
    for iteration in 0..3 {
        run.done("solve.step", iteration, &[]);
        run.done("solve.check", iteration, &[0]);
    }
    run.done("end", -1, &[]);
    let places = [("solve.step", 1), ("solve.check", 1), ("end", -1)];
    let task_instances = places.map(|(task, index)| (run.index(task), MapIndex(index))).to_vec();
    run.world.send(Event::Clear { task_instances });
    run.world.send(Event::Start);
    assert_eq!(run.state("solve.step", 2), TaskInstanceState::Removed);
    assert_eq!(run.ready(), ["solve.step[1]"], "what follows the loop waits again");
    run.done("solve.step", 1, &[]);
    run.done("solve.check", 1, &[0]);
    assert_eq!(run.ready(), ["solve.step[2]"]);
    run.done("solve.step", 2, &[]);
    run.done("solve.check", 2, &[1]);
    run.done("end", -1, &[]);
    assert_eq!(run.world.run.state(), DagRunState::Success);
}

#[test]
fn a_loop_inside_each_element_and_a_mapping_inside_a_loop() {
    let mut run = Repeats::of(
        "
  list: {component: C, task: t}
  channels:
    expand: {channel: \"{{ xcom.list }}\"}
    tasks:
      clean:
        loop: {until: \"{{ xcom.step.done }}\", max: 10}
        tasks:
          step: {component: C, task: t, input: {channel: \"{{ item.channel }}\", state: \"{{ previous.step | default(none) }}\"}}
      restore: {component: C, task: t, input: {state: \"{{ xcom['clean.step'] }}\"}}
  all: {component: C, task: t, input: {images: \"{{ xcom['channels.restore'] }}\"}}
",
    );
    run.done("list", -1, &[2]);
    assert_eq!(run.ready(), ["channels.clean.step[0]", "channels.clean.step[10]"]);
    run.done("channels.clean.step", 10, &[0]);
    run.done("channels.clean.step", 0, &[1]);
    assert_eq!(run.ready(), ["channels.clean.step[11]", "channels.restore[0]"]);
    let (step, restore) = (run.index("channels.clean.step"), run.index("channels.restore"));
    assert_eq!(run.world.run.previous(step, MapIndex(11), step), [MapIndex(10)]);
    run.done("channels.clean.step", 11, &[1]);
    assert_eq!(run.world.run.visible(restore, MapIndex(1), step), [MapIndex(11)]);
    run.done("channels.restore", 0, &[]);
    run.done("channels.restore", 1, &[]);
    run.done("all", -1, &[]);
    assert_eq!(run.world.run.state(), DagRunState::Success);

    let mut run = Repeats::of(
        "
  rounds:
    loop: {until: \"{{ xcom.decide.enough }}\", max: 4}
    tasks:
      spread: {component: C, task: t}
      one: {component: C, task: t, expand: {x: \"{{ xcom.spread }}\"}}
      decide: {component: C, task: t, input: {all: \"{{ xcom.one }}\"}}
",
    );
    run.done("rounds.spread", 0, &[2]);
    assert_eq!(run.ready(), ["rounds.one[0]", "rounds.one[1]"]);
    run.done("rounds.one", 0, &[]);
    run.done("rounds.one", 1, &[]);
    run.done("rounds.decide", 0, &[0]);
    run.done("rounds.spread", 1, &[1]);
    assert_eq!(run.ready(), ["rounds.one[10000]"], "iteration 1, element 0");
    let decide = run.index("rounds.decide");
    run.done("rounds.one", 10_000, &[]);
    assert_eq!(
        run.world.run.visible(decide, MapIndex(1), run.index("rounds.one")),
        [MapIndex(10_000)]
    );
    run.done("rounds.decide", 1, &[1]);
    assert_eq!(run.world.run.state(), DagRunState::Success);
}

#[test]
fn params_and_literals_are_expanded_from_the_start() {
    let run = Repeats::of(
        "
  hello: {component: C, task: t, expand: {name: \"{{ params.names }}\"}}
  pairs: {component: C, task: t, expand_zip: {a: [1, 2, 3], b: {x: 1, y: 2}}}
",
    );
    assert_eq!(run.ready(), ["hello[0]", "hello[1]", "pairs[0]", "pairs[1]"]);
}

#[test]
fn mapped_over_mapped_closes_up() {
    let mut run = Repeats::of(
        "
  first: {component: C, task: t, expand: {x: [1, 2, 3]}, trigger_rule: all_done}
  second: {component: C, task: t, expand: {y: \"{{ xcom.first }}\"}, trigger_rule: all_done}
",
    );
    run.done("first", 0, &[1]);
    run.execute("first", 1, TryEnd::Skip, &[]);
    run.done("first", 2, &[1]);
    assert_eq!(run.ready(), ["second[0]", "second[1]"]);
    let mut known = Known::default();
    let of = run.world.run.elements(run.index("second"), MapIndex(1), &mut known);
    assert_eq!(of[0].elements[0].instance, Some(MapIndex(2)));
}

#[test]
fn a_mapping_of_a_hundred_thousand_is_linear() {
    let mut run = Repeats::of(
        "
  plan: {component: C, task: t}
  work: {component: C, task: t, expand: {x: \"{{ xcom.plan }}\"}, map_limit: 100000}
  end: {component: C, task: t, after: [work]}
",
    );
    let plan = run.index("plan");
    let work = run.index("work");
    let finish = |run: &mut Repeats, task: TaskIndex, map_index: i32, measured: Vec<u32>| {
        let map_index = MapIndex(map_index);
        run.world.send(Event::Admit { task, map_index });
        let dispatch = run.world.run.ti(task, map_index).unwrap().dispatch;
        run.world.send(Event::TryFinished {
            task,
            map_index,
            dispatch,
            end: TryEnd::Done,
            measured,
            started_at: START,
            ended_at: START,
        });
    };
    finish(&mut run, plan, -1, vec![100_000]);
    for at in 0..100_000 {
        finish(&mut run, work, at, Vec::new());
    }
    assert_eq!(run.ready(), ["end[-1]"]);
    let restored = RunState::restore(DagRunKey(7), run.world.run.dag().clone(), run.world.run.snapshot());
    assert_eq!(restored.tis().count(), 100_002);
}
