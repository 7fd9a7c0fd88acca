//! From a file's keys to a runbook that can work.

use crate::file;
use crate::order::{Cycle, order};
use crate::{Approval, Check, Group, Mode, Network, OnFailure, Probe, Resources, Runbook, Script, Section, VmRule};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidemark_api::Complaint;
use tidemark_config::Span;

/// Groups, VMs, checks and scripts of one list at most.
const LIST_MAX: usize = 1024;
const SPAN_MAX: Duration = Duration::from_secs(24 * 3600);
const EVERY_MIN: Duration = Duration::from_millis(50);
const MEMORY_BYTES_MIN: u64 = 16 << 20;
const MEMORY_GRAIN: u64 = 1 << 20;
const CPUS_MAX: u32 = 512;

pub(crate) fn checked(file: file::File) -> Result<Runbook, Complaint> {
    check_text("name", &file.runbook.name).map_err(|e| e.within("runbook"))?;
    let groups = groups(file.group)?;
    let vms = each("vm", file.vm, vm)?;
    once("vm", vms.iter().map(|vm| vm.name.as_str()))?;
    let section = |name, file, mode| section(file, mode).map_err(|e: Complaint| e.within(name));
    Ok(Runbook {
        name: file.runbook.name,
        groups,
        vms,
        failover: section("failover", file.failover, Mode::Failover)?,
        test: section("test", file.test, Mode::Test)?,
        failback: section("failback", file.failback, Mode::Failback)?,
    })
}

/// Checks each item of a list; complaints name it by its number.
fn each<F, T>(list: &str, items: Vec<F>, check: impl Fn(F) -> Result<T, Complaint>) -> Result<Vec<T>, Complaint> {
    if items.len() > LIST_MAX {
        return Err(Complaint::new(list, format!("there are {}, at most {LIST_MAX} are allowed", items.len())));
    }
    let checked = |(number, item)| check(item).map_err(|e| e.within(format!("{list}[{number}]")));
    items.into_iter().enumerate().map(checked).collect()
}

/// Refuses a name that is there twice in a list of things that have one.
fn once<'a>(list: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Complaint> {
    let mut seen = BTreeSet::new();
    for (number, name) in names.enumerate() {
        if !seen.insert(name) {
            let what = format!("{list} {name:?} is there twice");
            return Err(Complaint::new(format!("{list}[{number}].name"), what).hint("put them together"));
        }
    }
    Ok(())
}

fn groups(file: Vec<file::Group>) -> Result<Vec<Group>, Complaint> {
    let names: Vec<String> = file.iter().map(|group| group.name.clone()).collect();
    once("group", names.iter().map(String::as_str))?;
    if names.len() > LIST_MAX {
        return Err(Complaint::new("group", format!("there are {}, at most {LIST_MAX} are allowed", names.len())));
    }
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut checked = Vec::new();
    for (number, group) in file.into_iter().enumerate() {
        let within = |e: Complaint| e.within(format!("group[{number}]"));
        check_text("name", &group.name).map_err(within)?;
        if group.vms.is_empty() {
            return Err(within(Complaint::new("vms", "the list is empty").hint("a group starts at least one VM")));
        }
        for (at, vm) in group.vms.iter().enumerate() {
            check_text(&format!("vms[{at}]"), vm).map_err(within)?;
            if let Some(other) = taken.insert(vm.clone(), group.name.clone()) {
                let what = format!("VM {vm:?} is in group {other:?} already");
                return Err(within(Complaint::new(format!("vms[{at}]"), what).hint("a VM starts once")));
            }
        }
        let after = match group.after {
            None => number.checked_sub(1).into_iter().collect(),
            Some(after) => after
                .iter()
                .enumerate()
                .map(|(at, name)| {
                    names.iter().position(|known| known == name).ok_or_else(|| {
                        let what = format!("there is no group {name:?}; there are {}", names.join(", "));
                        within(Complaint::new(format!("after[{at}]"), what).hint("write the group, or mend the name"))
                    })
                })
                .collect::<Result<_, _>>()?,
        };
        let delay = span("delay", group.delay, Duration::ZERO).map_err(within)?;
        let approval = if group.approve { Approval::Needed } else { Approval::NotNeeded };
        checked.push(Group { name: group.name, vms: group.vms, after, delay, approval });
    }
    let after: Vec<_> = checked.iter().map(|group| group.after.clone()).collect();
    order(&after).map_err(|Cycle(cycle)| {
        let name = |at: &usize| names[*at].as_str();
        let circle = cycle.iter().chain(cycle.first()).map(name).collect::<Vec<_>>().join(" after ");
        let what = format!("groups wait for each other: {circle}");
        Complaint::new(format!("group[{}].after", cycle[0]), what).hint("take one of these groups out of an after")
    })?;
    Ok(checked)
}

fn vm(file: file::Vm) -> Result<VmRule, Complaint> {
    check_text("name", &file.name)?;
    let memory_bytes = file.memory.map(|size| size.value);
    if let Some(bytes) = memory_bytes.filter(|b| *b < MEMORY_BYTES_MIN || !b.is_multiple_of(MEMORY_GRAIN)) {
        let what = format!("{bytes} bytes is not a multiple of 1 MiB from {MEMORY_BYTES_MIN} on");
        return Err(Complaint::new("memory", what).hint("such as \"2GiB\""));
    }
    if let Some(cpus) = file.cpus.filter(|cpus| !(1..=CPUS_MAX).contains(cpus)) {
        return Err(Complaint::new("cpus", format!("{cpus} is not within 1 and {CPUS_MAX}")));
    }
    Ok(VmRule {
        name: file.name,
        resources: Resources { memory_bytes, cpus: file.cpus },
        on_failure: file.on_failure.map(OnFailure::from),
        pre: each("pre", file.pre, script)?,
        checks: each("check", file.check, check)?,
        post: each("post", file.post, script)?,
    })
}

fn section(file: file::Section, mode: Mode) -> Result<Section, Complaint> {
    let mapped = each("network", file.network, |mapping| {
        check_text("from", &mapping.from)?;
        let to: Result<Network, String> = mapping.to.parse();
        let hint = "unplugged, isolated, outward, or bridge:NAME";
        Ok((mapping.from, to.map_err(|what| Complaint::new("to", what).hint(hint))?))
    })?;
    let mut networks = BTreeMap::new();
    for (number, (from, to)) in mapped.into_iter().enumerate() {
        if networks.insert(from.clone(), to).is_some() {
            let what = format!("network {from:?} is there twice");
            return Err(Complaint::new(format!("network[{number}].from"), what).hint("keep one of them"));
        }
    }
    // A test that is not told otherwise disturbs nobody.
    let other_networks = networks.remove("*").or((mode == Mode::Test).then_some(Network::Isolated));
    for (at, name) in file.skip.iter().enumerate() {
        check_text(&format!("skip[{at}]"), name)?;
    }
    Ok(Section {
        networks,
        other_networks,
        on_failure: file.on_failure.map_or_else(OnFailure::default, OnFailure::from),
        skip: file.skip,
        approvals: file.approvals.unwrap_or(mode != Mode::Test),
        pre: each("pre", file.pre, script)?,
        post: each("post", file.post, script)?,
    })
}

impl From<file::OnFailure> for OnFailure {
    fn from(file: file::OnFailure) -> Self {
        match file {
            file::OnFailure::Abort => Self::Abort,
            file::OnFailure::Continue => Self::Continue,
            file::OnFailure::Pause => Self::Pause,
        }
    }
}

fn script(file: file::Script) -> Result<Script, Complaint> {
    check_command(&file.command)?;
    Ok(Script { command: file.command, timeout: positive("timeout", file.timeout, Duration::from_secs(60))? })
}

fn check(file: file::Check) -> Result<Check, Complaint> {
    let mut probes = Vec::new();
    if file.agent {
        probes.push(("agent", Probe::Agent));
    }
    if let Some(text) = file.console {
        check_text("console", &text)?;
        probes.push(("console", Probe::Console(text)));
    }
    if let Some(address) = file.tcp {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            let what = format!("{address:?} is not HOST:PORT");
            return Err(Complaint::new("tcp", what).hint("such as \"10.0.0.5:5432\" or \"[fd00::5]:5432\""));
        }
        probes.push(("tcp", Probe::Tcp(address)));
    }
    if let Some(url) = file.http {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            let what = format!("{url:?} is not the address of a page");
            return Err(Complaint::new("http", what).hint("such as \"http://10.0.0.5/health\""));
        }
        let status = file.status.unwrap_or(200);
        if !(100..=599).contains(&status) {
            return Err(Complaint::new("status", format!("{status} is no status of a page")).hint("200 is a good one"));
        }
        probes.push(("http", Probe::Http { url, status }));
    } else if file.status.is_some() {
        return Err(Complaint::new("status", "only a page has a status").hint("add http, or remove status"));
    }
    if let Some(command) = file.command {
        check_command(&command)?;
        probes.push(("command", Probe::Command(command)));
    }
    let one = "one of agent, console, tcp, http and command; write a check for each";
    let probe = match (probes.pop(), probes.pop()) {
        (Some((_, probe)), None) => probe,
        (None, _) => return Err(Complaint::new("agent", "the check looks at nothing").hint(one)),
        (Some((second, _)), Some((first, _))) => {
            return Err(Complaint::new(second, format!("the check has {first} as well")).hint(one));
        }
    };
    let every = span("every", file.every, Duration::from_secs(1))?;
    if every < EVERY_MIN {
        return Err(Complaint::new("every", format!("{} ms is less than 50 ms", every.as_millis())));
    }
    Ok(Check { probe, timeout: positive("timeout", file.timeout, Duration::from_secs(300))?, every })
}

fn check_command(command: &[String]) -> Result<(), Complaint> {
    match command.first() {
        Some(program) if !program.is_empty() && command.len() <= LIST_MAX => {
            let nul = command.iter().position(|word| word.contains('\0'));
            nul.map_or(Ok(()), |at| Err(Complaint::new(format!("command[{at}]"), "a word of a command has no NUL")))
        }
        Some(_) if command.len() > LIST_MAX => {
            Err(Complaint::new("command", format!("{} words, at most {LIST_MAX} are allowed", command.len())))
        }
        _ => Err(Complaint::new("command", "there is no program").hint("[\"PROGRAM\", \"ARGUMENT\"]")),
    }
}

fn span(member: &str, span: Option<Span>, default: Duration) -> Result<Duration, Complaint> {
    let span = span.map_or(default, |span| span.value);
    if span > SPAN_MAX {
        return Err(Complaint::new(member, format!("{} ms is more than a day", span.as_millis())));
    }
    Ok(span)
}

fn positive(member: &str, given: Option<Span>, default: Duration) -> Result<Duration, Complaint> {
    let span = span(member, given, default)?;
    if span.is_zero() {
        return Err(Complaint::new(member, "nothing is done in no time").hint("such as \"1m\""));
    }
    Ok(span)
}

fn check_text(member: &str, text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return Err(Complaint::new(member, "the text is empty"));
    }
    if text.len() > tidemark_api::NAME_BYTES_MAX {
        let what = format!("{} bytes, at most {} are allowed", text.len(), tidemark_api::NAME_BYTES_MAX);
        return Err(Complaint::new(member, what));
    }
    if text.chars().any(char::is_control) {
        return Err(Complaint::new(member, format!("{text:?} has a control character")));
    }
    Ok(())
}
