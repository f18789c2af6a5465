//! `human:`: a task that asks a person.

use serde_json::{Map, Value, json};

use super::component::TaskDescriptor;
use super::diagnostic::Findings;
use super::field::{APPROVAL, HUMAN};
use super::param;
use super::section::{Section, Spanned, short, text, texts};
use super::suggest;
use super::tree::{Kind, Node};
use crate::human::{APPROVE, Approval, HumanStep, OK, OnTimeout, REJECT};

/// The most options of one question, and people that it may be for.
const MAX_ITEMS: usize = 100;
/// The longest option or name of a person, in bytes.
const MAX_ITEM_BYTES: usize = 250;

/// `human:` as it was read.
#[derive(Clone, Debug)]
pub(super) struct HumanDecl {
    pub(super) step: HumanStep,
    /// Of an approval: whether a rejection skips everything that follows.
    pub(super) ignore_downstream_trigger_rules: bool,
}

/// Reads `human:`.
pub(super) fn read(node: &Node, findings: &mut Findings) -> Option<HumanDecl> {
    let section = Section::open("`human`", &[HUMAN], node, findings)?;
    section.missing("subject", findings, node.pos);
    for key in ["subject", "body"] {
        if let Some(node) = section.get(key) {
            text(key, node, findings);
        }
    }
    let (approval, ignore_downstream_trigger_rules) = section
        .get("approval")
        .map_or((None, false), |node| approval(node, findings));
    let options = items("options", section.get("options"), findings);
    let multiple = section.bool("multiple", findings);
    if approval.is_some() {
        for key in ["options", "multiple"] {
            if section.get(key).is_some() {
                findings
                    .error(
                        "manifest_value",
                        section.key_pos(key),
                        format!("an approval has the options `{APPROVE}` and `{REJECT}`; `{key}` cannot be set"),
                    )
                    .hint(format!("remove `{key}`, or `approval`"));
            }
        }
    }
    let known: Vec<String> = match (&approval, &options) {
        (Some(_), _) => vec![APPROVE.to_owned(), REJECT.to_owned()],
        (None, Some(options)) => options.iter().map(|option| option.value.clone()).collect(),
        (None, None) => vec![OK.to_owned()],
    };
    let multiple = multiple.is_some_and(|multiple| multiple.value);
    // Of options that are wrong themselves nothing more is said.
    let unknown = section.has("options") && options.is_none();
    let mut defaults = section
        .get("defaults")
        .map(|node| defaults(node, (!unknown).then_some(&known), multiple, findings));
    if defaults.is_none() && approval.is_none() && options.is_none() {
        defaults = Some(vec![OK.to_owned()]);
    }
    let params = section
        .get("params")
        .map(|node| param::read(node, findings))
        .unwrap_or_default();
    let timeout = section.time_limit("timeout", findings).map(|timeout| timeout.value);
    let names: Vec<&str> = OnTimeout::ALL.iter().map(|name| name.as_str()).collect();
    let chosen = section.choice("on_timeout", &names, findings);
    if let (Some(chosen), None) = (&chosen, timeout) {
        let message = "`on_timeout` needs a `timeout`";
        findings
            .error("manifest_value", chosen.pos, message)
            .hint("write `timeout: 1d`, or remove `on_timeout`: without a timeout the question waits for ever");
    }
    let on_timeout = chosen.as_ref().and_then(|name| name.value.parse().ok());
    // Airflow: the defaults if there are any, else it fails.
    let on_timeout = on_timeout.unwrap_or(if defaults.is_some() {
        OnTimeout::Default
    } else {
        OnTimeout::Fail
    });
    if on_timeout == OnTimeout::Default && timeout.is_some() {
        if defaults.is_none() {
            findings
                .error(
                    "manifest_value",
                    section.key_pos("on_timeout"),
                    "`on_timeout: default` needs `defaults`",
                )
                .hint("write `defaults: [option]`");
        }
        for (name, param) in &params {
            if param.default.is_none() {
                findings
                    .error(
                        "manifest_value",
                        section.key_pos("params"),
                        format!(
                            "when time runs out the defaults are taken, and parameter `{}` has none",
                            short(name)
                        ),
                    )
                    .hint("give it a `default`, or write `on_timeout: fail` or `on_timeout: skip`");
            }
        }
    }
    let assigned_users = items("assigned_users", section.get("assigned_users"), findings);
    Some(HumanDecl {
        step: HumanStep {
            options: known,
            defaults,
            multiple,
            params: params.into_iter().collect(),
            assigned_users: assigned_users.into_iter().flatten().map(|user| user.value).collect(),
            timeout,
            on_timeout,
            approval,
            branches: false,
        },
        ignore_downstream_trigger_rules,
    })
}

fn approval(node: &Node, findings: &mut Findings) -> (Option<Approval>, bool) {
    match &node.kind {
        Kind::Bool(true) => (Some(Approval { fail_on_reject: false }), false),
        Kind::Bool(false) => (None, false),
        _ => {
            let Some(section) = Section::open("`approval`", &[APPROVAL], node, findings) else {
                return (None, false);
            };
            let mut flag = |key| section.bool(key, findings).is_some_and(|flag| flag.value);
            let approval = Approval {
                fail_on_reject: flag("fail_on_reject"),
            };
            (Some(approval), flag("ignore_downstream_trigger_rules"))
        }
    }
}

fn items(key: &str, node: Option<&Node>, findings: &mut Findings) -> Option<Vec<Spanned<String>>> {
    let node = node?;
    let items = texts(key, node, findings)?;
    if items.is_empty() || items.len() > MAX_ITEMS {
        findings
            .error(
                "manifest_value",
                node.pos,
                format!("`{key}` must have 1 to {MAX_ITEMS} entries"),
            )
            .hint(format!("write `{key}: [one, another]`, or remove it"));
        return None;
    }
    for (at, item) in items.iter().enumerate() {
        if item.value.is_empty() || item.value.len() > MAX_ITEM_BYTES {
            let message = format!("an entry of `{key}` must have 1 to {MAX_ITEM_BYTES} bytes");
            findings
                .error("manifest_value", item.pos, message)
                .hint("an entry is a few words; what has to be explained belongs into `body`");
        } else if items.iter().take(at).any(|earlier| earlier.value == item.value) {
            let message = format!("`{}` is in `{key}` twice", short(&item.value));
            findings
                .error("manifest_value", item.pos, message)
                .hint("remove one of the two");
        }
    }
    Some(items)
}

/// Airflow: `HITLOperator.validate_defaults`.
fn defaults(node: &Node, options: Option<&Vec<String>>, multiple: bool, findings: &mut Findings) -> Vec<String> {
    let chosen = items("defaults", Some(node), findings).unwrap_or_default();
    if chosen.len() > 1 && !multiple {
        findings
            .error(
                "manifest_value",
                node.pos,
                "there are several `defaults`, but only one option can be chosen",
            )
            .hint("write `multiple: true`");
    }
    for (option, options) in chosen.iter().zip(std::iter::repeat(options)) {
        let Some(options) = options else { break };
        if !options.contains(&option.value) {
            let hint = suggest::closest(&option.value, options.iter().map(String::as_str)).map_or_else(
                || "take one of the options, or add it to `options`".to_owned(),
                |option| format!("did you mean `{option}`?"),
            );
            findings
                .error(
                    "manifest_value",
                    option.pos,
                    format!(
                        "`{}` is not one of the options: {}",
                        short(&option.value),
                        options.join(", ")
                    ),
                )
                .hint(hint);
        }
    }
    chosen.into_iter().map(|option| option.value).collect()
}

/// What is asked, as the task's input.
pub(super) fn input(node: &Node) -> Value {
    let mut input = Map::new();
    if let Kind::Map(entries) = &node.kind {
        for entry in entries.iter().filter(|entry| matches!(&*entry.key, "subject" | "body")) {
            if matches!(entry.value.kind, Kind::Text(_)) {
                input.insert(entry.key.clone(), entry.value.to_json());
            }
        }
    }
    Value::Object(input)
}

/// The step as a component's task describes itself: what it publishes is known, and a branch has labels.
pub(super) fn descriptor(step: &HumanStep) -> TaskDescriptor {
    TaskDescriptor {
        name: step.class().to_owned(),
        doc: String::new(),
        input: json!({}),
        output: step.output_schema(),
        needs: Vec::new(),
        labels: step.branches.then(|| step.options.clone()),
    }
}
