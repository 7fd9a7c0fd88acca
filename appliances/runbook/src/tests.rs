//! Files as people write them, right and wrong, and what they do.

use crate::{
    Action, Approval, Check, ConfigError, Inventory, Mode, Network, OnFailure, Plan, Probe, Runbook, StepId, VmFacts,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const EXAMPLE: &str = include_str!("../../../docs/ops/runbook.toml");
const SCHEMA: &str = include_str!("../../../docs/ops/runbook.schema.json");
const HEAD: &str = "[runbook]\nname = \"r\"\n";

fn parse(text: &str) -> Result<Runbook, ConfigError> {
    Runbook::parse("r.toml", text)
}

/// What follows the head must be refused with this message, which begins with line and column, and with such a hint.
#[track_caller]
fn refused(more: &str, message: &str, hints: &str) {
    let error = parse(&format!("{HEAD}{more}")).expect_err(more);
    assert_eq!(error.to_string(), format!("r.toml:{message}"), "{more}");
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains(hints), "hint {hint:?} of {error}");
}

fn inventory(vms: &[(&str, &[&str])]) -> Inventory {
    let facts = |(name, networks): &(&str, &[&str])| VmFacts {
        name: (*name).to_owned(),
        networks: networks.iter().map(|network| (*network).to_owned()).collect(),
    };
    Inventory { vms: vms.iter().map(facts).collect() }
}

/// A plan in words: `NUMBER VM: what (after NUMBERS)`.
fn words(plan: &Plan) -> Vec<String> {
    let line = |step: &crate::Step| {
        let after = step.after.iter().map(|id| id.index().to_string()).collect::<Vec<_>>().join(" ");
        format!("{} {}: {} ({after})", step.id.index(), step.vm.as_deref().unwrap_or("-"), step.action)
    };
    plan.steps.iter().map(line).collect()
}

#[test]
fn the_example_can_work_and_what_is_commented_out_is_the_default() {
    let runbook = parse(EXAMPLE).unwrap();
    assert_eq!(runbook.name, "accounting");
    assert_eq!((runbook.groups[1].approval, runbook.groups[1].delay), (Approval::Needed, Duration::from_secs(10)));
    let db = runbook.vm("db1").unwrap();
    assert_eq!((db.resources.memory_bytes, db.on_failure), (Some(4 << 30), Some(OnFailure::Pause)));
    assert_eq!(db.checks.len(), 5);
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') && !key.is_empty() => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(uncommented.trim(), EXAMPLE.trim());
    assert_eq!(parse(&uncommented).unwrap_or_else(|e| panic!("{e}\n{uncommented}")), runbook);
    let inventory = inventory(&[("db1", &["office"]), ("web1", &["office", "dmz"]), ("web2", &[])]);
    for mode in [Mode::Failover, Mode::Test] {
        runbook.plan(mode, &inventory).unwrap();
    }
    let silent = runbook.plan(Mode::Failback, &inventory).unwrap_err();
    assert_eq!(silent.to_string(), "the runbook does not say what network \"dmz\" of VM web1 becomes in a failback");
    assert!(silent.hint().contains("[[failback.network]]"));
}

#[test]
fn the_schema_is_the_published_one() {
    assert_eq!(crate::schema(), SCHEMA, "tidemark runbook schema > docs/ops/runbook.schema.json");
}

#[test]
fn the_schema_knows_exactly_the_keys_of_the_files() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let keys = |object: &serde_json::Value| -> BTreeSet<String> {
        assert_eq!(object["additionalProperties"], false, "{object}");
        object["properties"].as_object().unwrap().keys().cloned().collect()
    };
    // A wrong key makes the parser list the right ones.
    for (table, definition) in
        [("group", "Group"), ("vm", "Vm"), ("vm.check", "Check"), ("vm.pre", "Script"), ("test.network", "Network")]
    {
        let outer = if table.starts_with("vm.") { "[[vm]]\nname = \"v\"\n" } else { "" };
        let error = parse(&format!("{HEAD}{outer}[[{table}]]\nqqqqqqqqqqqqqqqq = 1\n")).unwrap_err();
        let known: BTreeSet<String> =
            error.hint().unwrap().strip_prefix("keys here are ").unwrap().split(", ").map(str::to_owned).collect();
        assert_eq!(keys(&schema["$defs"][definition]), known, "{table}");
    }
}

#[test]
fn a_runbook_of_one_name_starts_everything_at_once() {
    let plan = Runbook::everything_at_once().plan(Mode::Test, &inventory(&[("a", &["lan"]), ("b", &[])])).unwrap();
    assert_eq!(words(&plan), ["0 a: start ()", "1 b: start ()"]);
    let Action::Start(start) = &plan.steps[0].action else { panic!("{plan:?}") };
    assert_eq!(start.networks, [Network::Isolated], "a test disturbs nobody");
}

#[test]
fn a_plan_has_every_step_behind_what_it_waits_for() {
    let text = r#"
[[group]]
name = "db"
vms = ["db"]
[[group]]
name = "cache"
vms = ["cache"]
after = []
[[group]]
name = "web"
vms = ["web1", "web2"]
after = ["db", "cache"]
delay = "5s"
approve = true
[[vm]]
name = "db"
[[vm.pre]]
command = ["prepare"]
[[vm.check]]
agent = true
timeout = "90s"
[[vm.post]]
command = ["announce", "db"]
timeout = "1500ms"
[failover]
network = [{ from = "*", to = "unplugged" }]
[[failover.pre]]
command = ["begin"]
[[failover.post]]
command = ["end"]
"#;
    let runbook = parse(&format!("{HEAD}{text}")).unwrap();
    let inventory = inventory(&[("cache", &[]), ("db", &["lan"]), ("log", &[]), ("web1", &[]), ("web2", &[])]);
    let plan = runbook.plan(Mode::Failover, &inventory).unwrap();
    assert_eq!(
        words(&plan),
        [
            "0 -: run begin ()",
            "1 db: run prepare (0)",
            "2 db: start (1)",
            "3 db: check guest agent, within 90s (2)",
            "4 db: run announce db (3)",
            "5 cache: start (0)",
            "6 -: wait for approval (4 5)",
            "7 -: wait 5s (6)",
            "8 web1: start (7)",
            "9 web2: start (7)",
            "10 log: start (4 5 8 9)",
            "11 -: run end (10)",
        ]
    );
    let minute = Duration::from_secs(60);
    let most = minute + minute + Duration::from_millis(91_500) + Duration::from_secs(5) + minute;
    assert_eq!(plan.span(), (Duration::from_secs(5), most));
    // Nobody approves in a test, and there are no scripts of the failover.
    let test = words(&runbook.plan(Mode::Test, &inventory).unwrap());
    assert_eq!(test[..2], ["0 db: run prepare ()", "1 db: start (0)"]);
    assert!(!test.iter().any(|step| step.contains("approval")), "{test:?}");
}

#[test]
fn a_skipped_vm_holds_nobody_up() {
    let text = "[[group]]\nname = \"a\"\nvms = [\"a\"]\n[[group]]\nname = \"b\"\nvms = [\"b\"]\n\
                [[group]]\nname = \"c\"\nvms = [\"c\"]\n[test]\nskip = [\"b\"]\n";
    let runbook = parse(&format!("{HEAD}{text}")).unwrap();
    let plan = runbook.plan(Mode::Test, &inventory(&[("a", &[]), ("b", &[]), ("c", &[])])).unwrap();
    assert_eq!(words(&plan), ["0 a: start ()", "1 c: start (0)"]);
    assert_eq!(plan.skipped, ["b"]);
}

#[test]
fn vms_that_the_domain_does_not_have_are_named() {
    let text = "[[group]]\nname = \"g\"\nvms = [\"a\", \"x\"]\n[[vm]]\nname = \"y\"\n[test]\nskip = [\"z\"]\n";
    let runbook = parse(&format!("{HEAD}{text}")).unwrap();
    let error = runbook.plan(Mode::Test, &inventory(&[("a", &[]), ("b", &[])])).unwrap_err().to_string();
    let want = "the runbook names x, y, z, which the domain does not have at that point; it has a, b";
    assert_eq!(error, want);
}

#[test]
fn what_is_wrong_has_a_place_and_a_hint() {
    refused("[[grup]]\n", "3:3: unknown key grup", "did you mean group?");
    refused("[[group]]\nname = \"a\"\nvms = []\n", "5:7: vms: the list is empty", "at least one");
    refused(
        "[[vm]]\nname = \"a\"\nmemory = \"1000\"\n",
        "5:10: memory: 1000 bytes is not a multiple of 1 MiB from 16777216 on",
        "2GiB",
    );
    refused("[[vm]]\nname = \"a\"\ncpus = 0\n", "5:8: cpus: 0 is not within 1 and 512", "docs/ops/runbook.toml");
    refused("[[vm]]\nname = \"a\"\n[[vm]]\nname = \"a\"\n", "6:8: name: vm \"a\" is there twice", "together");
    let two = "[[group]]\nname = \"a\"\nvms = [\"v\"]\n[[group]]\nname = \"b\"\nvms = [\"w\", \"v\"]\n";
    refused(two, "8:13: vms[1]: VM \"v\" is in group \"a\" already", "starts once");
    let unknown = "[[group]]\nname = \"a\"\nvms = [\"v\"]\nafter = [\"b\"]\n";
    refused(unknown, "6:10: after[0]: there is no group \"b\"; there are a", "mend the name");
    let itself = "[[group]]\nname = \"a\"\nvms = [\"v\"]\nafter = [\"a\"]\n";
    refused(itself, "6:9: after: groups wait for each other: a after a", "take one");
}

#[test]
fn checks_scripts_and_networks_that_cannot_be_are_refused() {
    let check = |line: &str, message: &str, hints: &str| {
        refused(&format!("[[vm]]\nname = \"a\"\n[[vm.check]]\n{line}\n"), message, hints);
    };
    check("every = \"1s\"", "5:1: agent: the check looks at nothing", "one of agent");
    check("agent = true\ntcp = \"h:1\"", "7:7: tcp: the check has agent as well", "a check for each");
    check("tcp = \"10.0.0.5\"", "6:7: tcp: \"10.0.0.5\" is not HOST:PORT", "5432");
    check("tcp = \"h:0\"", "6:7: tcp: \"h:0\" is not HOST:PORT", "5432");
    check("http = \"10.0.0.5\"", "6:8: http: \"10.0.0.5\" is not the address of a page", "http://");
    check("agent = true\nstatus = 200", "7:10: status: only a page has a status", "add http");
    check("command = []", "6:11: command: there is no program", "PROGRAM");
    check("agent = true\ntimeout = \"0s\"", "7:11: timeout: nothing is done in no time", "1m");
    check("agent = true\nevery = \"1ms\"", "7:9: every: 1 ms is less than 50 ms", "docs/ops");
    check("agent = true\ntimeout = \"2d\"", "7:11: timeout: 172800000 ms is more than a day", "docs/ops");
    let network = |to: &str, message: &str| {
        refused(&format!("[[test.network]]\nfrom = \"lan\"\nto = \"{to}\"\n"), message, "unplugged, isolated");
    };
    network("nowhere", "5:6: to: \"nowhere\" is not a network");
    network("bridge:", "5:6: to: \"\" is no name of a bridge");
    network("bridge:br0,script=x", "5:6: to: \"br0,script=x\" is no name of a bridge");
    let twice = "[test]\nnetwork = [{ from = \"a\", to = \"isolated\" }, { from = \"a\", to = \"outward\" }]\n";
    refused(twice, "4:54: from: network \"a\" is there twice", "keep one");
}

#[test]
fn a_check_looks_at_one_thing() {
    let text =
        "[[vm]]\nname = \"a\"\n[[vm.check]]\nhttp = \"http://h/\"\nstatus = 204\ntimeout = \"3s\"\nevery = \"100ms\"\n";
    let runbook = parse(&format!("{HEAD}{text}")).unwrap();
    let probe = Probe::Http { url: "http://h/".into(), status: 204 };
    let want = Check { probe, timeout: Duration::from_secs(3), every: Duration::from_millis(100) };
    assert_eq!(runbook.vm("a").unwrap().checks, [want]);
}

/// Groups `g0`, `g1`, ... of a VM or two each, with what each waits for.
fn text_of(groups: &[(usize, Vec<usize>)]) -> String {
    let mut text = HEAD.to_owned();
    for (number, (vms, after)) in groups.iter().enumerate() {
        let vms: Vec<String> = (0..*vms).map(|vm| format!("g{number}v{vm}")).collect();
        let after: Vec<String> = after.iter().map(|at| format!("g{at}")).collect();
        text += &format!("[[group]]\nname = \"g{number}\"\nvms = {vms:?}\nafter = {after:?}\n");
        text += &format!("[[vm]]\nname = \"g{number}v0\"\ncheck = [{{ agent = true }}]\n");
    }
    text
}

/// Everything that a step waits for, at first or second hand.
fn waits(plan: &Plan, id: StepId, found: &mut BTreeSet<usize>) {
    for before in &plan.step(id).after {
        if found.insert(before.index()) {
            waits(plan, *before, found);
        }
    }
}

fn any_groups() -> impl Strategy<Value = Vec<(usize, Vec<usize>)>> {
    (1usize..8)
        .prop_flat_map(|count| proptest::collection::vec((1usize..3, proptest::collection::vec(0..count, 0..3)), count))
}

proptest! {
    #[test]
    fn prop_a_plan_keeps_every_order_and_a_circle_is_named(groups in any_groups()) {
        match parse(&text_of(&groups)) {
            Ok(runbook) => {
                let vms = groups.iter().enumerate().flat_map(|(at, (vms, _))| (0..*vms).map(move |vm| format!("g{at}v{vm}")));
                let inventory = Inventory { vms: vms.map(|name| VmFacts { name, networks: vec![] }).collect() };
                let plan = runbook.plan(Mode::Test, &inventory).unwrap();
                prop_assert_eq!(&plan, &runbook.plan(Mode::Test, &inventory).unwrap(), "a plan is a function");
                let started = plan.steps.iter().filter(|step| matches!(step.action, Action::Start(_))).count();
                prop_assert_eq!(started, inventory.vms.len());
                for step in &plan.steps {
                    let mut before = BTreeSet::new();
                    waits(&plan, step.id, &mut before);
                    let group: usize = step.group.as_ref().unwrap()[1..].parse().unwrap();
                    for wanted in &groups[group].1 {
                        let name = format!("g{wanted}");
                        for other in plan.steps.iter().filter(|other| other.group.as_ref() == Some(&name)) {
                            prop_assert!(before.contains(&other.id.index()), "{:?} before {:?}", other, step);
                        }
                    }
                }
            }
            Err(error) => {
                let said = error.to_string();
                let (_, circle) = said.split_once("wait for each other: ").expect("nothing else is wrong");
                let circle: Vec<usize> = circle.split(" after ").map(|name| name[1..].parse().unwrap()).collect();
                prop_assert_eq!(circle.first(), circle.last());
                for pair in circle.windows(2) {
                    prop_assert!(groups[pair[0]].1.contains(&pair[1]), "{} does not wait for {}", pair[0], pair[1]);
                }
            }
        }
    }

    #[test]
    fn prop_no_text_makes_the_parser_panic(text in "[\\[\\]a-z0-9=\"\\n .{}#,]{0,200}") {
        parse(&format!("{HEAD}{text}")).ok();
    }
}
