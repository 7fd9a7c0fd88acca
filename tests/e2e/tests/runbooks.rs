//! Runbooks at the command line, over a domain that a DRVA protects.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use tidemark_e2e::Tidemark;
use tidemark_e2e::drva::Site;
use tidemark_e2e::promises::{members, promised};

const DOMAIN: &str = r#"
[[domain]]
name = "d"
url = "{at}/bucket"
create = true
disk = [{ vm = "db", disk = "root", primary = "{at}/db.img" }, { vm = "web", disk = "root", primary = "{at}/web.img" }]
"#;

#[test]
fn a_runbook_is_laid_over_what_a_domain_holds_and_nothing_starts() {
    let binary = env!("CARGO_BIN_EXE_tidemark-under-test");
    let site = Site::new(binary, DOMAIN);
    for vm in ["db", "web"] {
        site.image(&format!("{vm}.img"), 1 << 20);
    }
    let _daemon = site.serve("db/root");
    for vm in ["db", "web"] {
        site.until_disk_is(&format!("{vm}/root"), "protected");
    }
    let xml = site.path("db.xml");
    let interface = "<interface type='network'><source network='office'/></interface>";
    std::fs::write(&xml, format!("<domain><devices>{interface}</devices></domain>")).unwrap();
    site.drva(&["vm", "config", "d", "db", &xml.display().to_string()]);
    site.drain();

    let runbook = site.path("runbook.toml");
    let file = runbook.display().to_string();
    let write = |more: &str| std::fs::write(&runbook, format!("[runbook]\nname = \"r\"\n{more}")).unwrap();
    let order = "[[group]]\nname = \"a\"\nvms = [\"db\"]\n[[vm]]\nname = \"db\"\ncheck = [{ agent = true }]\n";
    write(order);
    let tidemark = Tidemark::new(binary);
    let checked = tidemark.json(["runbook", "check", &file, &site.bucket()]);
    assert_eq!(members(&checked), promised("runbook check"));
    let what: Vec<&Value> = checked["steps"].as_array().unwrap().iter().map(|step| &step["what"]).collect();
    assert_eq!(what, ["start", "check guest agent, within 300s", "start"]);
    assert_eq!((&checked["steps"][2]["vm"], &checked["steps"][2]["after"]), (&"web".into(), &serde_json::json!([1])));
    assert!(tidemark.ok(["runbook", "check", &file]).stdout.contains("check guest agent"), "without a domain");

    let refused = |args: &[&str], code: i32, says: &str, hint: &str| {
        let ran = tidemark.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
        assert!(ran.stderr.contains(says) && ran.stderr.contains(hint), "{ran:?}");
    };
    let bucket = site.bucket();
    let failover = ["runbook", "check", &file, &bucket, "--mode", "failover"];
    refused(&failover, 1, "what network \"office\" of VM db becomes in a failover", "[[failover.network]]");
    write("[[group]]\nname = \"a\"\nvms = [\"mail\"]\n");
    refused(&["runbook", "check", &file, &bucket], 1, "names mail, which the domain does not have", "another point");
    write("[[group]]\nname = \"a\"\nvms = []\n");
    refused(&["runbook", "check", &file], 2, "runbook.toml:5:7: vms: the list is empty", "at least one VM");
}

#[test]
fn the_schema_is_what_the_documentation_has() {
    let printed = Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test")).ok(["runbook", "schema"]).stdout;
    let published = include_str!("../../../docs/ops/runbook.schema.json");
    assert_eq!(printed, published);
}
