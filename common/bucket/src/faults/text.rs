//! A plan of faults as text, for the command line of a whole-process test.
//!
//! Items stand between commas: `seed=N`, `surface`, `vanish-after=N`, and rules `OP:PREFIX:FAULT:WHEN`. OP is get, put, list,
//! delete, head or any; PREFIX may be empty; FAULT is error, applied-lost, short, bitflip, stale404, slow-Nms, hang or
//! ignore-condition; WHEN is a probability or `@N` for the N-th such request:
//! `seed=7,put:log/:applied-lost:0.05,get::bitflip:0.001,any::slow-20ms:0.1,put:claim/:error:@1`.

use super::{Fault, Faults, Rule, When};
use crate::error::Error;
use crate::meter::Op;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

impl FromStr for Faults {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut plan = Self::seeded(0);
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            add(&mut plan, item).map_err(|why| Error::BadFault { rule: item.chars().take(80).collect(), why })?;
        }
        Ok(plan)
    }
}

fn add(plan: &mut Faults, item: &str) -> Result<(), &'static str> {
    const NUMBER: &str = "it is not a number";
    if let Some(seed) = item.strip_prefix("seed=") {
        plan.seed = seed.parse().map_err(|_| NUMBER)?;
    } else if let Some(requests) = item.strip_prefix("vanish-after=") {
        plan.vanish_after = Some(requests.parse().map_err(|_| NUMBER)?);
    } else if item == "surface" {
        plan.surfacing = true;
    } else {
        let parts: Vec<_> = item.split(':').collect();
        let &[op, prefix, fault, when] = parts.as_slice() else { return Err("a rule is OP:PREFIX:FAULT:WHEN") };
        let op = match op {
            "any" => None,
            _ => Some(*Op::ALL.iter().find(|known| known.name() == op).ok_or("no such kind of request")?),
        };
        let fault = parse_fault(fault).ok_or("no such fault")?;
        if op.is_some_and(|op| !fault.fits(op)) {
            return Err("that fault cannot happen to such a request");
        }
        let when = match when.strip_prefix('@') {
            Some(nth) => When::Nth(nth.parse().map_err(|_| NUMBER)?),
            None => When::Chance(when.parse().map_err(|_| NUMBER)?),
        };
        if matches!(when, When::Chance(chance) if !(0.0..=1.0).contains(&chance)) {
            return Err("a probability is from 0 to 1");
        }
        plan.rules.push(Rule { op, prefix: prefix.to_owned(), fault, when });
    }
    Ok(())
}

fn parse_fault(text: &str) -> Option<Fault> {
    Some(match text {
        "error" => Fault::Error,
        "applied-lost" => Fault::AppliedLost,
        "short" => Fault::Short,
        "bitflip" => Fault::BitFlip,
        "stale404" => Fault::Stale404,
        "hang" => Fault::Hang,
        "ignore-condition" => Fault::IgnoreCondition,
        _ => Fault::Slow(Duration::from_millis(text.strip_prefix("slow-")?.strip_suffix("ms")?.parse().ok()?)),
    })
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::AppliedLost => "applied-lost",
            Self::Short => "short",
            Self::BitFlip => "bitflip",
            Self::Stale404 => "stale404",
            Self::Hang => "hang",
            Self::IgnoreCondition => "ignore-condition",
            Self::Slow(delay) => return write!(f, "slow-{}ms", delay.as_millis()),
        })
    }
}

/// The text that gives the plan again: print it with every failing seed.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed={}", self.seed)?;
        if self.surfacing {
            f.write_str(",surface")?;
        }
        if let Some(requests) = self.vanish_after {
            write!(f, ",vanish-after={requests}")?;
        }
        for Rule { op, prefix, fault, when } in &self.rules {
            write!(f, ",{}:{prefix}:{fault}:", op.map_or("any", Op::name))?;
            match when {
                When::Chance(chance) => write!(f, "{chance}")?,
                When::Nth(nth) => write!(f, "@{nth}")?,
            }
        }
        Ok(())
    }
}
