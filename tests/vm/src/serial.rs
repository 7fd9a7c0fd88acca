//! What a guest says on its serial console, and what follows of it.
//!
//! Invariants: only whole lines count, as a kill cuts the last one short; a step is promised once its `MARK` is whole.

use std::collections::BTreeMap;

/// A guest removes files that are older than so many steps of each disk (`window` in guest/init).
const WINDOW: u64 = 32;

/// So many of the last promised steps must be on the disks, at least: the step under way when the guest was killed may have
/// removed one more.
pub const KEPT_STEPS: u64 = WINDOW - 1;

/// The console of one life of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serial(String);

/// What a guest found when it checked its disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whole files.
    pub ok: u64,
    /// Files that do not hold what their name says.
    pub bad: u64,
}

impl Serial {
    /// Of the bytes that came.
    pub fn new(bytes: &[u8]) -> Self {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        Self(String::from_utf8_lossy(&bytes[..whole]).replace('\r', ""))
    }

    /// Everything.
    pub fn text(&self) -> &str {
        &self.0
    }

    fn words(&self) -> impl Iterator<Item = Vec<&str>> {
        self.0.lines().map(|line| line.split(' ').collect())
    }

    fn steps(&self, verb: &str) -> BTreeMap<u64, String> {
        let step = |words: Vec<&str>| match words[..] {
            [said, step, sha] if said == verb && (sha == "-" || sha.len() == 64) => {
                Some((step.parse().ok()?, sha.to_owned()))
            }
            _ => None,
        };
        self.words().filter_map(step).collect()
    }

    /// Steps that the guest saw as durable, with the SHA-256 of their file; `-` where a step is no file.
    pub fn marks(&self) -> BTreeMap<u64, String> {
        self.steps("MARK")
    }

    /// The last step that the guest saw as durable; 0 if there is none.
    pub fn last_mark(&self) -> u64 {
        self.marks().last_key_value().map_or(0, |(step, _)| *step)
    }

    /// Steps that the guest found whole when it checked.
    pub fn held(&self) -> BTreeMap<u64, String> {
        self.steps("HELD")
    }

    /// What it found when it checked its disks, if it did.
    pub fn verdict(&self) -> Option<Verdict> {
        self.words().find_map(|words| match words[..] {
            ["VERIFY", ok, bad] => {
                let count = |word: &str, name: &str| word.strip_prefix(name)?.parse().ok();
                Some(Verdict { ok: count(ok, "ok=")?, bad: count(bad, "bad=")? })
            }
            _ => None,
        })
    }

    /// Disks that it had to format.
    pub fn formatted(&self) -> Vec<&str> {
        self.0.lines().filter_map(|line| line.strip_prefix("FORMATTED ")).collect()
    }

    /// Why it gave up, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix("FAILED "))
    }

    /// True if it said this line.
    pub fn says(&self, line: &str) -> bool {
        self.0.lines().any(|said| said == line)
    }
}

/// What guests promised over all their lives on the same disks.
#[derive(Clone, Debug, Default)]
pub struct Promises(BTreeMap<u64, String>);

impl Promises {
    /// Takes what a life of [`Job::Write`](crate::Job::Write) promised.
    pub fn add(&mut self, life: &Serial) {
        self.0.extend(life.marks());
    }

    /// The last promised step; 0 if there is none.
    pub fn last(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(step, _)| *step)
    }

    /// Checks what a later life found against everything promised.
    ///
    /// # Errors
    /// If a promised step is missing or differs, a file is damaged, or the guest did not check.
    pub fn check(&self, later: &Serial) -> Result<(), String> {
        let Verdict { ok, bad } = later.verdict().ok_or_else(|| format!("it did not check:\n{}", later.text()))?;
        if bad > 0 {
            return Err(format!("{bad} damaged files beside {ok} whole ones:\n{}", later.text()));
        }
        let held = later.held();
        let oldest = self.last().saturating_sub(KEPT_STEPS - 1).max(1);
        let broken = |(step, sha): &(&u64, &String)| held.get(step) != Some(sha);
        match self.0.range(oldest..).find(broken) {
            None => Ok(()),
            Some((step, sha)) => Err(format!(
                "step {step} of {} was durable as {sha}, and is {}",
                self.last(),
                held.get(step).map_or("gone", String::as_str)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn a_line_that_a_kill_cut_short_promises_nothing() {
        let whole = format!("READY\r\nMARK 1 {}\r\n", sha('a'));
        let cut = format!("{whole}MARK 2 {}", sha('b'));
        assert_eq!(Serial::new(cut.as_bytes()).last_mark(), 1);
        let cut = format!("{whole}MARK 2 {}\n", &sha('b')[..63]);
        assert_eq!(Serial::new(cut.as_bytes()).last_mark(), 1);
        assert_eq!(Serial::new(b"MARK 3").last_mark(), 0);
        assert!(Serial::new(whole.as_bytes()).says("READY"));
    }

    #[test]
    fn a_lost_a_changed_and_a_damaged_step_break_the_promise() {
        let mut promises = Promises::default();
        promises.add(&Serial::new(format!("MARK 1 {}\nMARK 2 {}\n", sha('a'), sha('b')).as_bytes()));
        let found = |text: String| promises.check(&Serial::new(text.as_bytes()));
        let held = |step: u64, digit| format!("HELD {step} {}\n", sha(digit));
        let good = held(1, 'a') + &held(2, 'b');
        assert_eq!(found(format!("{good}VERIFY ok=2 bad=0\n")), Ok(()));
        // A step that was durable before the guest could say so.
        assert_eq!(found(format!("{good}{}VERIFY ok=3 bad=0\n", held(3, 'c'))), Ok(()));
        assert!(found(good.clone()).unwrap_err().contains("did not check"));
        assert!(found(format!("{}VERIFY ok=1 bad=0\n", held(1, 'a'))).unwrap_err().contains("is gone"));
        assert!(found(format!("{}{}VERIFY ok=2 bad=0\n", held(1, 'a'), held(2, 'c'))).is_err());
        assert!(found(format!("{good}VERIFY ok=2 bad=1\n")).unwrap_err().contains("1 damaged"));
    }

    #[test]
    fn only_the_last_steps_must_be_there() {
        let text = |verb: &str, steps: std::ops::RangeInclusive<u64>| -> String {
            steps.map(|step| format!("{verb} {step} {}\n", sha('a'))).collect()
        };
        let mut promises = Promises::default();
        promises.add(&Serial::new(text("MARK", 1..=100).as_bytes()));
        let found = |from| promises.check(&Serial::new((text("HELD", from..=100) + "VERIFY ok=1 bad=0\n").as_bytes()));
        assert_eq!(found(101 - KEPT_STEPS), Ok(()));
        assert!(found(102 - KEPT_STEPS).is_err());
    }
}
