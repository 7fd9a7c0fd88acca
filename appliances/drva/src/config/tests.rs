//! Files as people write them, right and wrong.

use super::{Config, ConfigError};
use std::path::Path;
use std::time::Duration;
use tidemark_api::{Day, Limit, OverflowPolicy, ProtectionMode, Settings, TimeOfDay};

const EXAMPLE: &str = include_str!("../../../../docs/ops/drva.toml");

/// What every file has.
const LEAST: &str = r#"
[appliance]
name = "drva1"
state = "/var/lib/tidemark"
[log_store]
path = "/var/lib/tidemark/log"
[nbd]
socket = "/run/tidemark/nbd.sock"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse("drva.toml", text)
}

/// The least that a file has to say, and more.
fn with(more: &str) -> Result<Config, ConfigError> {
    parse(&format!("{LEAST}{more}"))
}

/// Must be refused with this message, which begins with line and column, and with a hint that has these words.
#[track_caller]
fn refused(text: &str, message: &str, hints: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.to_string(), format!("drva.toml:{message}"), "{text}");
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains(hints), "hint {hint:?} of {error}");
}

/// The same for what follows the least that a file has to say; `message` counts its lines from 1.
#[track_caller]
fn refused_with(more: &str, message: &str, hints: &str) {
    let (line, rest) = message.split_once(':').expect("a message begins with its line");
    let line = line.parse::<usize>().expect("a number") + LEAST.lines().count();
    refused(&format!("{LEAST}{more}"), &format!("{line}:{rest}"), hints);
}

#[test]
fn the_example_can_work_and_shows_every_key() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.appliance.name, "drva1");
    assert_eq!(config.log_store.size_bytes, Some(32 << 30));
    assert_eq!(config.defaults.rpo_ms, 5_000);
    let accounting = &config.domains[0];
    assert_eq!((accounting.create, accounting.settings.rpo_ms), (true, Some(2_000)));
    assert_eq!(accounting.disks[1].size_bytes, Some(256 << 30));
    assert_eq!(accounting.disks[1].primary, None);

    // What is commented out works as well, and says the default.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') && !key.is_empty() => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let full = parse(&uncommented).unwrap_or_else(|e| panic!("{e}\n{uncommented}"));
    let defaults = Settings { bandwidth: full.defaults.bandwidth.clone(), ..Settings::default() };
    assert_eq!(full.defaults, defaults);
    assert_eq!(full.appliance.socket, Path::new(tidemark_api::DRVA_SOCKET));
    assert_eq!((&full.appliance.fence_check, &full.log_store), (&config.appliance.fence_check, &config.log_store));
    let tls = full.nbd.tls.clone().unwrap();
    assert!(tls.required && tls.client_ca.is_some());
    let plain = super::Nbd { listen: None, tls: None, ..full.nbd };
    assert_eq!(plain, config.nbd);
}

#[test]
fn the_least_file_gets_the_defaults() {
    let config = with("").unwrap();
    assert_eq!(config.defaults, Settings::default());
    assert_eq!(config.appliance.fence_check, Duration::from_secs(5));
    assert_eq!((config.nbd.connections_max, config.nbd.requests_in_flight_max), (256, 64));
    assert_eq!((config.log_store.size_bytes, config.domains.len()), (None, 0));
}

#[test]
fn settings_of_a_domain_go_before_the_defaults() {
    let config = with(
        r#"
[defaults]
upload = "400Mbit/s"
mode = "write-back"
[[defaults.bandwidth]]
days = ["sat", "sun"]
from = "22:00"
to = "06:00"
upload = "unlimited"
[[domain]]
name = "a"
url = "/srv/a"
[domain.settings]
overflow = "stall"
upload = "1MiB/s"
throttle = { start_fill = 0.25, latency_max = "200ms" }
"#,
    )
    .unwrap();
    let settings = config.defaults.with(&config.domains[0].settings);
    assert_eq!((settings.mode, settings.overflow), (ProtectionMode::WriteBack, OverflowPolicy::Stall));
    assert_eq!((settings.throttle_start_fill, settings.throttle_latency_ms_max), (0.25, 200));
    let at = |day, time: &str| settings.upload_limit_at(day, time.parse::<TimeOfDay>().unwrap()).get();
    assert_eq!(at(Day::Sat, "21:59"), Some(1 << 20));
    assert_eq!(at(Day::Sat, "22:00"), None);
    assert_eq!(at(Day::Mon, "05:59"), None, "the night from Sunday to Monday");
    assert_eq!(at(Day::Mon, "06:00"), Some(1 << 20));
    let mut midnight = settings.clone();
    midnight.bandwidth[0].from = "24:00".parse().unwrap();
    let at = |day, time: &str| midnight.upload_limit_at(day, time.parse::<TimeOfDay>().unwrap()).get();
    assert_eq!((at(Day::Sat, "23:59"), at(Day::Sun, "00:00")), (Some(1 << 20), None), "24:00 is the next day's 00:00");
    assert_eq!(config.defaults.upload_bytes_per_s, Limit::at_most(50_000_000).unwrap());
}

#[test]
fn syntax_errors_have_a_place() {
    refused("[appliance\nname = 1", "1:11: unclosed table, expected `]`", "docs/ops/drva.toml");
    refused("[appliance]\nname = drva1\n", "2:8: string values must be quoted, expected literal string", "docs/ops");
    refused_with("[appliance]\n", "1:2: duplicate key", "docs/ops/drva.toml");
    let umlaut = "[appliance]\nname = \"Zürich\" oops\n";
    refused(umlaut, "2:17: unexpected key or value, expected newline, `#`", "docs/ops/drva.toml");
}

#[test]
fn what_is_missing_or_unknown_has_a_place_and_a_proposal() {
    refused("[appliance]\nname = \"a\"\n", "1:1: missing key `state`", "docs/ops/drva.toml");
    refused("", "1:1: missing key `appliance`", "docs/ops/drva.toml");
    refused_with("[defaults]\nrop = \"5s\"\n", "2:1: unknown key rop", "did you mean rpo?");
    refused_with("[default]\n", "1:2: unknown key default", "did you mean defaults?");
    refused_with(
        "[[domain]]\nname = \"a\"\nurl = \"/a\"\n[[domain.disk]]\nvm = \"v\"\ndisk = \"d\"\n  colour = \"blue\"\n",
        "7:3: unknown key colour",
        "keys here are vm, disk, primary, size, mode, overflow, shared, export",
    );
    refused_with("[defaults.throttle]\nstart = 0.5\n", "2:1: unknown key start", "start_fill, latency_max");
}

#[test]
fn values_of_the_wrong_kind_have_a_place() {
    let defaults =
        |line: &str, message: &str, hints: &str| refused_with(&format!("[defaults]\n{line}\n"), message, hints);
    let see = "docs/ops/drva.toml";
    defaults("rpo = 5", "2:7: invalid type: integer `5`, expected a span of time such as \"5s\"", see);
    defaults("rpo = \"5\"", "2:7: \"5\" is not a span of time such as 200ms, 5s, 10m or 1h", see);
    defaults("segment_size = \"64MB\"", "2:16: \"64MB\" can be read in two ways: write 64MiB for powers of 1024", see);
    defaults("upload = \"50MiB\"", "2:10: \"50MiB\" is not a rate such as 50MiB/s, 400Mbit/s or unlimited", see);
    defaults("log_max = \"0\"", "2:11: \"0\" is not a size such as 64KiB, 10GiB or unlimited, above 0", see);
    let mode = "2:8: unknown variant `write-trough`, expected `write-through` or `write-back`";
    defaults("mode = \"write-trough\"", mode, see);
    defaults("zstd_level = \"fast\"", "2:14: invalid type: string \"fast\", expected a whole number", see);
    refused("appliance = 5\n", "1:13: invalid type: integer `5`, expected a table", see);
    let window = "[[defaults.bandwidth]]\ndays = [\"mon\"]\nfrom = \"8:00\"\nto = \"18:00\"\nupload = \"1MiB/s\"\n";
    refused_with(window, "3:8: \"8:00\" is not a time of day such as 08:00", see);
}

#[test]
fn values_out_of_bounds_have_a_place_and_a_hint() {
    let defaults =
        |line: &str, message: &str, hints: &str| refused_with(&format!("[defaults]\n{line}\n"), message, hints);
    let see = "docs/ops/drva.toml";
    defaults("rpo = \"10ms\"", "2:7: rpo: 10 ms is not within 50 and 86400000 ms", see);
    let segment = "2:16: segment_size: 1073741824 bytes is not within 65536 and 134217728 bytes";
    defaults("segment_size = \"1GiB\"", segment, see);
    defaults("zstd_level = 22", "2:14: zstd_level: 22 is not a level of zstd within 1 and 19", "1 is fast");
    defaults(
        "throttle = { latency_max = \"1m\" }",
        "2:28: latency_max: 60000 ms is not within 1 and 25000 ms",
        "guests give a disk up after 30 s",
    );
    defaults(
        "throttle = { start_fill = 1.5 }",
        "2:27: start_fill: 1.5 is not a fill within 0.05 and 0.95",
        "half full",
    );
    let days = "[[defaults.bandwidth]]\ndays = []\nfrom = \"08:00\"\nto = \"18:00\"\nupload = \"1MiB/s\"\n";
    refused_with(days, "2:8: days: a window without days never begins", "days = [");
}

#[test]
fn relations_that_do_not_hold_have_a_place() {
    refused_with(
        "[defaults]\nlog_min = \"2GiB\"\nlog_max = \"1GiB\"\n",
        "3:11: log_max: the maximum of 1073741824 bytes is below the minimum of 2147483648 bytes",
        "raise the one or lower the other",
    );
    // The domain's minimum is above the default maximum: the domain is where somebody has to look.
    refused_with(
        "[defaults]\nlog_max = \"1GiB\"\n[[domain]]\nname = \"a\"\nurl = \"/a\"\n[domain.settings]\nlog_min = \"2GiB\"\n",
        "6:1: log_max: the maximum of 1073741824 bytes is below the minimum of 2147483648 bytes",
        "raise the one",
    );
    let small = LEAST.replace("[nbd]", "size = \"64MiB\"\n[nbd]");
    refused(
        &format!("{small}[[domain]]\nname = \"a\"\nurl = \"/a\"\n[[domain]]\nname = \"b\"\nurl = \"/b\"\n"),
        "7:8: size: 67108864 bytes is less than the 134217728 that the log_min of all domains add up to",
        "lower log_min",
    );
}

#[test]
fn names_buckets_primaries_and_exports_are_there_once() {
    let two = |second: &str| format!("[[domain]]\nname = \"a\"\nurl = \"/a\"\n[[domain]]\n{second}");
    refused_with(&two("name = \"a\"\nurl = \"/b\"\n"), "5:8: name: domain \"a\" is there twice", "another name");
    refused_with(&two("name = \"b\"\nurl = \"/a\"\n"), "6:7: url: bucket \"/a\" is there twice", "one domain");
    let disks = |more: &str| {
        let first = "[[domain.disk]]\nvm = \"v\"\ndisk = \"d\"\nprimary = \"/dev/x\"\n";
        format!("[[domain]]\nname = \"a\"\nurl = \"/a\"\n{first}[[domain.disk]]\n{more}")
    };
    let disk = "vm = \"v\"\ndisk = \"d\"\n";
    refused_with(&disks(disk), "10:8: disk: v/d is there twice", "a VM and a name make a disk");
    let primary = "vm = \"w\"\ndisk = \"d\"\nprimary = \"/dev/x\"\n";
    refused_with(&disks(primary), "11:11: primary: primary \"/dev/x\" is there twice", "destroy each other");
    let export = "vm = \"w\"\ndisk = \"d\"\nexport = \"a/v/d\"\n";
    refused_with(&disks(export), "11:10: export: export \"a/v/d\" is there twice", "another export");
}

#[test]
fn disks_that_cannot_be_are_refused() {
    let disk = |lines: &str| format!("[[domain]]\nname = \"a\"\nurl = \"/a\"\n[[domain.disk]]\nvm = \"v\"\n{lines}");
    refused_with(&disk("disk = \"a/b\"\n"), "6:8: disk: \"a/b\" has a slash", "VM/DISK");
    refused_with(&disk("disk = \"\"\n"), "6:8: disk: the text is empty", "docs/ops");
    let size = "7:8: size: 1000 bytes is not a multiple of 512 above 0";
    refused_with(&disk("disk = \"d\"\nsize = \"1000\"\n"), size, "whole blocks");
    let mode = "7:8: mode: a disk without a primary cannot be write-back: nothing is to be written behind";
    refused_with(&disk("disk = \"d\"\nmode = \"write-back\"\n"), mode, "name the primary");
}

#[test]
fn the_appliance_itself_is_checked() {
    let replaced = |from: &str, to: &str, message: &str, hints: &str| refused(&LEAST.replace(from, to), message, hints);
    replaced("\"drva1\"", "\"\"", "3:8: name: \"\" is not a name of 1 to 255 bytes", "host's name");
    replaced("\"/var/lib/tidemark\"", "\"var\"", "4:9: state: \"var\" is not an absolute path", "begin with /");
    replaced(
        "[log_store]",
        "time_zone = \"Atlantis\"\n[log_store]",
        "5:13: time_zone: failed to find time zone `Atlantis` in time zone database",
        "UTC",
    );
    replaced(
        "[log_store]",
        "fence_check = \"0s\"\n[log_store]",
        "5:15: fence_check: 0 ms is not within 100 ms and 1 h",
        "5s",
    );
    replaced(
        "[nbd]",
        "size = \"1MiB\"\n[nbd]",
        "7:8: size: 1048576 bytes is not a multiple of 4096 from 16777216 on",
        "outage",
    );
    replaced("[nbd]", "cache_max = \"1K\"\n[nbd]", "7:13: cache_max: 1024 bytes is less than 1 MiB", "256MiB");
    let long = format!("\"/{}\"", "x".repeat(107));
    let too_long = "8:10: socket: 108 bytes are too long for a socket, which takes 107";
    replaced("\"/run/tidemark/nbd.sock\"", &long, too_long, "/run/tidemark");
}

#[test]
fn disks_are_not_opened_to_a_network_by_accident() {
    let nbd = |lines: &str| format!("{}{lines}\n", &LEAST[..LEAST.find("socket =").unwrap()]);
    refused(&nbd(""), "7:1: socket: there is neither socket nor listen: nobody reaches a disk", "nbd.sock");
    let open = "8:10: listen: 0.0.0.0:10809 lets anybody on the network read and write the disks";
    refused(&nbd("listen = \"0.0.0.0:10809\""), open, "allow_plain");
    let tls = "[nbd.tls]\ncert = \"/c\"\nkey = \"/k\"";
    refused(&nbd(&format!("listen = \"0.0.0.0:10809\"\n{tls}")), open, "client_ca");
    refused(
        &nbd(&format!("socket = \"/s\"\n{tls}")),
        "9:1: tls: there is no listen: a unix socket has no TLS",
        "listen",
    );
    refused(&nbd("listen = \"localhost\""), "8:10: invalid socket address syntax", "docs/ops");
    refused(&nbd("socket = \"/s\"\nrequests_max = 0"), "9:16: requests_max: 0 is not within 1 and 1024", "docs/ops");
    refused(
        &nbd("socket = \"/s\"\nbuffer_max = \"1MiB\""),
        "9:14: buffer_max: 1048576 bytes is less than 67108864",
        "32 MiB",
    );
    for fine in [
        "listen = \"127.0.0.1:10809\"".to_owned(),
        "listen = \"0.0.0.0:10809\"\nallow_plain = true".to_owned(),
        format!("listen = \"[::]:10809\"\n{tls}\nclient_ca = \"/ca\""),
    ] {
        parse(&nbd(&fine)).unwrap_or_else(|e| panic!("{fine}: {e}"));
    }
}

#[test]
fn a_file_that_is_not_there_says_which() {
    let error = Config::load(Path::new("/nowhere/drva.toml")).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/drva.toml: "), "{error}");
    assert!(error.hint().unwrap().contains("docs/ops/drva.toml"));
}
