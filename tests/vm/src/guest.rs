//! A guest: one QEMU process, its disks, its job, and the sockets around it.

use crate::process::{Process, initrd, kernel, tool, until};
use crate::serial::Serial;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a guest does; `guest/init` says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Checks what is there, then writes so many more files, on its disks in turn, each durable before its mark.
    Write {
        /// How many.
        steps: u64,
    },
    /// Checks what is there and powers off.
    Verify,
    /// Puts the number of each step into bytes 4096..8192 of its first disk, durably, before its mark.
    Lead {
        /// How many.
        steps: u64,
    },
    /// Does so with each number that it is told through [`Guest::relay`], until it is told `end`.
    Follow,
    /// Writes random blocks over its first disk, flushing and marking each tenth.
    Churn {
        /// How many writes.
        steps: u64,
    },
    /// Mounts its disks and waits.
    Idle,
}

impl Job {
    /// Never ends on its own.
    pub const WRITE: Self = Self::Write { steps: 1_000_000 };

    fn words(self) -> String {
        match self {
            Self::Write { steps } => format!("job=write steps={steps}"),
            Self::Verify => "job=verify".to_owned(),
            Self::Lead { steps } => format!("job=lead steps={steps}"),
            Self::Follow => "job=follow".to_owned(),
            Self::Churn { steps } => format!("job=churn steps={steps}"),
            Self::Idle => "job=idle".to_owned(),
        }
    }
}

/// How QEMU reaches a disk: what `-blockdev` takes, less the node's name.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk(Value);

impl Disk {
    /// A raw file, past the host's page cache.
    pub fn raw(path: &Path) -> Self {
        Self(json!({
            "driver": "raw", "discard": "unmap",
            "file": { "driver": "file", "filename": path, "cache": { "direct": true }, "discard": "unmap" },
        }))
    }

    /// An export behind a Unix socket. A server that is gone for less than `reconnect_delay` is waited for.
    pub fn nbd(socket: &Path, export: &str, reconnect_delay: Duration) -> Self {
        Self(json!({
            "driver": "nbd", "discard": "unmap", "server": { "type": "unix", "path": socket },
            "export": export, "reconnect-delay": reconnect_delay.as_secs(),
        }))
    }

    /// Anything else that QEMU can open.
    pub fn blockdev(options: Value) -> Self {
        assert!(options.is_object(), "a blockdev is an object");
        Self(options)
    }
}

/// A guest to be: build it, then [`boot`](Self::boot).
#[derive(Clone, Debug)]
pub struct Machine {
    dir: PathBuf,
    name: String,
    disks: Vec<Disk>,
    job: Job,
    runs: bool,
    incoming: Option<PathBuf>,
}

impl Machine {
    /// A guest whose files and sockets lie in `dir` and begin with `name`.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            disks: Vec::new(),
            job: Job::Idle,
            runs: true,
            incoming: None,
        }
    }

    /// With one more disk. Disks are `vda`, `vdb`, ... in the guest and as ids of QEMU's devices; their block nodes are called
    /// `node-vda`, `node-vdb`, ...
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Does this job.
    #[must_use]
    pub fn job(mut self, job: Job) -> Self {
        self.job = job;
        self
    }

    /// Never runs an instruction: disks are there, QEMU answers, and whoever commands it writes in the guest's place.
    #[must_use]
    pub fn asleep(mut self) -> Self {
        self.runs = false;
        self
    }

    /// Waits for another machine to move here: that one is told to migrate to the Unix socket `socket`.
    #[must_use]
    pub fn incoming(mut self, socket: &Path) -> Self {
        self.incoming = Some(socket.to_owned());
        self
    }

    fn place(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.name))
    }

    fn args(&self) -> Vec<String> {
        let mut args: Vec<String> = [
            "-nodefaults -no-user-config -display none -no-reboot",
            "-M q35 -accel tcg -cpu max -m 192 -smp 1",
            "-device virtio-serial-pci",
        ]
        .iter()
        .flat_map(|words| words.split(' '))
        .map(str::to_owned)
        .collect();
        if !self.runs {
            args.push("-S".to_owned());
        }
        let mut arg = |option: &str, value: String| args.extend([option.to_owned(), value]);
        arg("-kernel", kernel().display().to_string());
        arg("-initrd", initrd().display().to_string());
        if let Some(socket) = &self.incoming {
            arg("-incoming", format!("unix:{}", socket.display()));
        }
        let letters: Vec<String> =
            (b'a'..=b'z').take(self.disks.len()).map(|c| format!("vd{}", char::from(c))).collect();
        let words =
            format!("console=ttyS0 quiet panic=-1 rdinit=/init {} disks={}", self.job.words(), letters.join(","));
        arg("-append", words);
        arg("-serial", format!("file:{}", self.place("serial").display()));
        arg("-qmp", format!("unix:{},server=on,wait=off", self.place("qmp").display()));
        for (id, port) in [("agent", "org.qemu.guest_agent.0"), ("relay", "tidemark.relay")] {
            arg("-chardev", format!("socket,id={id},path={},server=on,wait=off", self.place(id).display()));
            arg("-device", format!("virtserialport,chardev={id},name={port}"));
        }
        for (letter, disk) in letters.iter().zip(&self.disks) {
            let mut options = disk.0.clone();
            options["node-name"] = format!("node-{letter}").into();
            arg("-blockdev", options.to_string());
            arg("-device", format!("virtio-blk-pci,id={letter},drive=node-{letter}"));
        }
        args
    }

    /// Starts it; it goes on booting on its own.
    pub fn boot(&self) -> Guest {
        for left in ["serial", "qmp", "agent", "relay"] {
            std::fs::remove_file(self.place(left)).ok();
        }
        let process = Process::start(&tool("qemu-system-x86_64"), &self.args(), self.place("qemu.log"));
        let mut guest = Guest { process, machine: self.clone() };
        for socket in ["agent", "relay", "qmp"] {
            guest.wait_for(socket, |guest| UnixStream::connect(guest.machine.place(socket)).ok());
        }
        guest
    }
}

/// A running guest. It is killed when dropped.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    machine: Machine,
}

impl Guest {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where its QEMU takes commands; one client at a time.
    pub fn qmp_socket(&self) -> PathBuf {
        self.machine.place("qmp")
    }

    /// Where QEMU's guest agent in it answers, once it is up; one client at a time.
    pub fn agent_socket(&self) -> PathBuf {
        self.machine.place("agent")
    }

    /// A line to a guest with [`Job::Follow`].
    pub fn relay(&self) -> UnixStream {
        UnixStream::connect(self.machine.place("relay")).expect("QEMU listens")
    }

    /// What it said until now.
    pub fn serial(&self) -> Serial {
        Serial::new(&std::fs::read(self.machine.place("serial")).unwrap_or_default())
    }

    /// Waits until `look` finds something; fails if the guest ends or gives up before.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_for<T>(&mut self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        until(what, || {
            let ended = self.process.ended();
            let found = look(self);
            let serial = self.serial();
            let failure = serial.failure();
            assert!(
                found.is_some() || ended.is_none() && failure.is_none(),
                "no {what}: guest {} ended ({ended:?}), {failure:?}\n{}\n{}",
                self.machine.name,
                self.process.said(),
                serial.text()
            );
            found
        })
    }

    /// Waits until it has mounted its disks and begun its job.
    pub fn wait_ready(&mut self) -> Serial {
        self.wait_for("READY", |guest| Some(guest.serial()).filter(|serial| serial.says("READY")))
    }

    /// Waits until step `step` is durable.
    pub fn wait_mark(&mut self, step: u64) -> Serial {
        self.wait_for(&format!("mark {step}"), |guest| Some(guest.serial()).filter(|serial| serial.last_mark() >= step))
    }

    /// Waits until so many more steps are durable than now.
    pub fn wait_more_marks(&mut self, more: u64) -> Serial {
        let now = self.serial().last_mark();
        self.wait_mark(now + more)
    }

    /// Waits until it has done its job and powered off.
    pub fn wait_end(&mut self) -> Serial {
        self.wait_for("DONE", |guest| Some(guest.serial()).filter(|serial| serial.says("DONE")));
        until("power off", || self.process.ended());
        self.serial()
    }

    /// Tells `follower` of every step of this guest, a leader of so many, as soon as it is durable, until both have ended. `told`
    /// hears the last step each time before the follower does.
    pub fn relay_to(&mut self, follower: &mut Self, steps: u64, mut told: impl FnMut(u64)) {
        let mut relay = follower.relay();
        let mut last = 0;
        while last < steps {
            let marked = self.wait_mark(last + 1).last_mark();
            told(marked);
            for step in last + 1..=marked {
                writeln!(relay, "{step}").expect("the follower listens");
            }
            last = marked;
        }
        writeln!(relay, "end").expect("the follower listens");
        follower.wait_end();
        self.wait_end();
    }

    /// SIGKILL; what it had said until then.
    pub fn kill(&mut self) -> Serial {
        self.process.kill();
        self.serial()
    }
}
