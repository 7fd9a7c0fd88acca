//! Settles which export a connection uses, and how: options in, answers out. Pure but for what [`Exports`] tells.
//!
//! Invariants: nothing of what was agreed before TLS holds after it; where TLS is required nothing but it is answered;
//! whatever comes in, the answer is bounded.
//! Not here: reading and writing, and the time that a client may take (`connection`).

use super::contexts;
use super::wire::{self, Cursor, Framing, info, option, option_reply, transmission_flag};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::volume::{Exports, Geometry, StatusContext, Volume};
use std::sync::Arc;
use tidemark_format::with_causes;

/// Bytes of the data of one option, at most; larger ones are read past and refused.
pub const OPTION_BYTES_MAX: u32 = 64 << 10;
/// Contexts that one connection may select.
pub const CONTEXTS_MAX: usize = 16;
/// Bytes of the answer to one option, at most: a list of exports ends there.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Where a connection stands with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// There is none.
    Off,
    /// The client may start it.
    Offered,
    /// The client has to start it first.
    Required,
    /// It runs.
    Active,
}

/// What was settled.
pub struct Session {
    /// The export.
    pub volume: Arc<dyn Volume>,
    /// Its name.
    pub export: String,
    /// How to frame requests and replies.
    pub framing: Framing,
    /// What block status is answered about; a context's number is its place.
    pub contexts: Vec<StatusContext>,
}

/// What comes next.
pub enum Step {
    /// Another option.
    Next,
    /// The TLS handshake, then options from the start.
    StartTls,
    /// Requests.
    Transmit(Session),
    /// The end, once the answer was sent.
    End,
}

/// One connection's negotiation.
pub struct Negotiation<'a> {
    pub(super) exports: &'a dyn Exports,
    client: &'a Client,
    tls: Tls,
    payload_bytes_max: u32,
    no_zeroes: bool,
    framing: Framing,
    /// The export for which contexts were selected last, and those.
    selected: Option<(String, Vec<StatusContext>)>,
}

/// Why an option is not granted: the kind of the answer, and words for people.
struct Refusal(u32, String);

impl<'a> Negotiation<'a> {
    /// A connection after the greeting. Payloads of up to `payload_bytes_max` are announced.
    ///
    /// # Errors
    /// `flags`, the client's answer to the greeting, may hold unknown ones; then there is no common language.
    pub fn new(
        exports: &'a dyn Exports,
        client: &'a Client,
        tls: Tls,
        payload_bytes_max: u32,
        flags: u32,
    ) -> Result<Self> {
        let known = wire::handshake_flag::FIXED_NEWSTYLE | wire::handshake_flag::NO_ZEROES;
        if flags & !u32::from(known) != 0 {
            return Err(Error::Invalid { what: format!("client flags {flags:#x}, known are {known:#x}") });
        }
        let no_zeroes = flags & u32::from(wire::handshake_flag::NO_ZEROES) != 0;
        let framing = Framing::Simple;
        Ok(Self { exports, client, tls, payload_bytes_max, no_zeroes, framing, selected: None })
    }

    /// The TLS handshake is done, by `client` as it is known now; everything said before is void.
    #[must_use]
    pub fn secured(self, client: &'a Client) -> Self {
        Self { client, tls: Tls::Active, framing: Framing::Simple, selected: None, ..self }
    }

    /// The export that an option asks about: it should be known before the option is answered.
    pub fn asks_about<'d>(&self, option: u32, data: &'d [u8]) -> Option<&'d str> {
        match option {
            _ if self.tls == Tls::Required => None,
            option::EXPORT_NAME => std::str::from_utf8(data).ok(),
            option::INFO | option::GO | option::LIST_META_CONTEXT | option::SET_META_CONTEXT => Cursor(data).string(),
            _ => None,
        }
    }

    /// Answers an option.
    pub fn answer(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) -> Step {
        let result = match option {
            option::ABORT => {
                wire::option_reply(out, option, option_reply::ACK, &[]);
                return Step::End;
            }
            // The one that cannot be refused with words.
            option::EXPORT_NAME => return self.export_name(data, out).map_or(Step::End, Step::Transmit),
            option::STARTTLS => self.start_tls(data),
            _ if self.tls == Tls::Required => {
                Err(Refusal(option_reply::ERR_TLS_REQD, "this server wants TLS first".into()))
            }
            option::LIST => self.list(data, out),
            option::INFO | option::GO => self.info(option, data, out),
            option::STRUCTURED_REPLY => self.frame(Framing::Structured, data),
            option::EXTENDED_HEADERS => self.frame(Framing::Extended, data),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.meta_context(option, data, out),
            _ => Err(Refusal(option_reply::ERR_UNSUP, format!("option {option} is unknown here"))),
        };
        match result {
            Ok(step) => {
                wire::option_reply(out, option, option_reply::ACK, &[]);
                step
            }
            Err(Refusal(kind, words)) => {
                wire::option_reply(out, option, kind, &[words.as_bytes()]);
                Step::Next
            }
        }
    }

    /// Answers an option whose data is larger than [`OPTION_BYTES_MAX`] and was read past.
    pub fn answer_too_big(&self, option: u32, out: &mut Vec<u8>) -> Step {
        if option == option::EXPORT_NAME {
            return Step::End;
        }
        let words = format!("at most {OPTION_BYTES_MAX} bytes of data");
        wire::option_reply(out, option, option_reply::ERR_TOO_BIG, &[words.as_bytes()]);
        Step::Next
    }

    fn export_name(&self, data: &[u8], out: &mut Vec<u8>) -> Option<Session> {
        let name = std::str::from_utf8(data).ok()?;
        if self.tls == Tls::Required || name.len() > wire::STRING_BYTES_MAX {
            return None;
        }
        let session = self.session(name, self.exports.open(name, self.client).ok()?);
        let geometry = session.volume.geometry();
        out.extend_from_slice(&size_bytes(&geometry).to_be_bytes());
        out.extend_from_slice(&self.flags(&geometry).to_be_bytes());
        if !self.no_zeroes {
            out.extend_from_slice(&[0; 124]);
        }
        Some(session)
    }

    fn session(&self, name: &str, volume: Arc<dyn Volume>) -> Session {
        let contexts = match &self.selected {
            Some((export, contexts)) if export == name => contexts.clone(),
            _ => Vec::new(),
        };
        Session { volume, export: name.to_owned(), framing: self.framing, contexts }
    }

    fn start_tls(&self, data: &[u8]) -> Result<Step, Refusal> {
        match self.tls {
            _ if !data.is_empty() => Err(no_data()),
            Tls::Offered | Tls::Required => Ok(Step::StartTls),
            Tls::Off => Err(Refusal(option_reply::ERR_POLICY, "this server has no TLS".into())),
            Tls::Active => Err(Refusal(option_reply::ERR_INVALID, "TLS runs already".into())),
        }
    }

    fn list(&self, data: &[u8], out: &mut Vec<u8>) -> Result<Step, Refusal> {
        if !data.is_empty() {
            return Err(no_data());
        }
        let start = out.len();
        for export in self.exports.list(self.client) {
            let (name, description) = (export.name.as_bytes(), export.description.as_bytes());
            let description = &description[..description.len().min(wire::STRING_BYTES_MAX)];
            let one = wire::OPTION_HEADER_BYTES + 8 + name.len() + description.len();
            if out.len() - start + one > ANSWER_BYTES_MAX {
                break;
            }
            let len = (name.len() as u32).to_be_bytes();
            wire::option_reply(out, option::LIST, option_reply::SERVER, &[&len, name, description]);
        }
        Ok(Step::Next)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn Volume>, Refusal> {
        self.exports.open(name, self.client).map_err(|error| match error {
            Error::NoExport { .. } => Refusal(option_reply::ERR_UNKNOWN, error.to_string()),
            Error::ShuttingDown { .. } => Refusal(option_reply::ERR_SHUTDOWN, error.to_string()),
            _ => Refusal(option_reply::ERR_POLICY, with_causes(&error)),
        })
    }

    fn info(&self, option: u32, data: &[u8], out: &mut Vec<u8>) -> Result<Step, Refusal> {
        let mut cursor = Cursor(data);
        let (name, wanted) = (|| {
            let name = cursor.string()?;
            let count = usize::from(cursor.u16()?);
            let wanted = (0..count).map(|_| cursor.u16()).collect::<Option<Vec<_>>>()?;
            cursor.0.is_empty().then_some((name, wanted))
        })()
        .ok_or_else(malformed)?;
        let volume = self.open(name)?;
        let geometry = volume.geometry();
        let mut inform = |kind: u16, data: &[&[u8]]| {
            let kind = kind.to_be_bytes();
            wire::option_reply(out, option, option_reply::INFO, &[&[&kind[..]], data].concat());
        };
        if wanted.contains(&info::NAME) {
            inform(info::NAME, &[name.as_bytes()]);
        }
        if wanted.contains(&info::DESCRIPTION) {
            let listed = self.exports.list(self.client).into_iter().find(|export| export.name == name);
            if let Some(export) = listed.filter(|export| export.description.len() <= wire::STRING_BYTES_MAX) {
                inform(info::DESCRIPTION, &[export.description.as_bytes()]);
            }
        }
        if wanted.contains(&info::BLOCK_SIZE) {
            let sizes = [geometry.block_bytes_min, geometry.block_bytes_preferred, self.payload_bytes_max];
            inform(info::BLOCK_SIZE, &sizes.map(u32::to_be_bytes).each_ref().map(|raw| &raw[..]));
        }
        let (size, flags) = (size_bytes(&geometry).to_be_bytes(), self.flags(&geometry).to_be_bytes());
        inform(info::EXPORT, &[&size, &flags]);
        Ok(if option == option::GO { Step::Transmit(self.session(name, volume)) } else { Step::Next })
    }

    fn frame(&mut self, framing: Framing, data: &[u8]) -> Result<Step, Refusal> {
        if !data.is_empty() {
            return Err(no_data());
        }
        if self.framing == Framing::Extended && framing == Framing::Structured {
            let words = "extended headers include structured replies";
            return Err(Refusal(option_reply::ERR_EXT_HEADER_REQD, words.into()));
        }
        if self.framing == framing {
            return Err(Refusal(option_reply::ERR_INVALID, "agreed on already".into()));
        }
        self.framing = framing;
        Ok(Step::Next)
    }

    fn meta_context(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) -> Result<Step, Refusal> {
        if self.framing == Framing::Simple {
            return Err(Refusal(option_reply::ERR_INVALID, "structured replies come first".into()));
        }
        let selects = option == option::SET_META_CONTEXT;
        if selects {
            // Even a refused selection ends the one before.
            self.selected = None;
        }
        let mut cursor = Cursor(data);
        let (name, queries) = (|| {
            let name = cursor.string()?;
            let count = cursor.u32()?;
            // Each takes at least the four bytes of its length: a lie about the count ends here.
            let queries = (0..count).map(|_| cursor.string()).collect::<Option<Vec<_>>>()?;
            cursor.0.is_empty().then_some((name, queries))
        })()
        .ok_or_else(malformed)?;
        let volume = self.open(name)?;
        if selects {
            self.select(name, &*volume, &queries, out)?;
            return Ok(Step::Next);
        }
        let offered = contexts::offered(&*volume);
        let mut listed: Vec<&str> = if queries.is_empty() {
            offered.iter().map(String::as_str).collect()
        } else {
            let asked = |name: &&String| queries.iter().any(|query| contexts::matches(query, name));
            offered.iter().filter(asked).map(String::as_str).collect()
        };
        for query in queries.into_iter().take(CONTEXTS_MAX) {
            if !listed.contains(&query) && contexts::find(&*volume, query).is_some() {
                listed.push(query);
            }
        }
        for name in listed {
            wire::option_reply(out, option, option_reply::META_CONTEXT, &[&[0; 4], name.as_bytes()]);
        }
        Ok(Step::Next)
    }

    /// Selects contexts by their exact names; unknown ones are passed over.
    fn select(&mut self, export: &str, volume: &dyn Volume, names: &[&str], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut selected: Vec<(&str, StatusContext)> = Vec::new();
        for name in names {
            let known = selected.iter().any(|(other, _)| other == name);
            if let Some(context) = contexts::find(volume, name).filter(|_| !known) {
                if selected.len() == CONTEXTS_MAX {
                    let words = format!("at most {CONTEXTS_MAX} contexts");
                    return Err(Refusal(option_reply::ERR_TOO_BIG, words));
                }
                selected.push((name, context));
            }
        }
        for (id, (name, _)) in selected.iter().enumerate() {
            let id = (id as u32).to_be_bytes();
            let data = [&id[..], name.as_bytes()];
            wire::option_reply(out, option::SET_META_CONTEXT, option_reply::META_CONTEXT, &data);
        }
        let contexts = selected.into_iter().map(|(_, context)| context).collect();
        self.selected = Some((export.to_owned(), contexts));
        Ok(())
    }

    fn flags(&self, geometry: &Geometry) -> u16 {
        use transmission_flag::*;
        let mut flags = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN | SEND_CACHE;
        let changes = SEND_TRIM | SEND_WRITE_ZEROES | if geometry.fast_zero { SEND_FAST_ZERO } else { 0 };
        flags |= if geometry.read_only { READ_ONLY } else { changes };
        flags |= if geometry.rotational { ROTATIONAL } else { 0 };
        flags | if self.framing == Framing::Simple { 0 } else { SEND_DF }
    }
}

/// Bytes of a volume within reach: its whole blocks.
pub(super) fn size_bytes(geometry: &Geometry) -> u64 {
    geometry.size_bytes - geometry.size_bytes % u64::from(geometry.block_bytes_min)
}

fn no_data() -> Refusal {
    Refusal(option_reply::ERR_INVALID, "this option has no data".into())
}

fn malformed() -> Refusal {
    Refusal(option_reply::ERR_INVALID, "the data of this option is malformed".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Peer;
    use crate::memory::MemoryVolume;
    use crate::volume::ExportInfo;
    use proptest::prelude::*;

    const CLIENT: Client = Client { connection: 1, peer: Peer::Unix { pid: None, uid: 0 }, certificate: None };

    /// Many exports with long names.
    struct Many(usize);

    impl Exports for Many {
        fn list(&self, _: &Client) -> Vec<ExportInfo> {
            let info = |i| ExportInfo { name: format!("{i:04000}"), description: "d".repeat(9000) };
            (0..self.0).map(info).collect()
        }
        fn open(&self, name: &str, _: &Client) -> Result<Arc<dyn Volume>> {
            match name {
                "disk" => Ok(Arc::new(MemoryVolume::new(1 << 20)?)),
                _ => Err(Error::NoExport { name: name.into() }),
            }
        }
    }

    fn negotiation(exports: &Many, tls: Tls) -> Negotiation<'_> {
        Negotiation::new(exports, &CLIENT, tls, 32 << 20, 3).expect("known flags")
    }

    /// Mostly data that an option could have.
    fn any_data() -> impl Strategy<Value = Vec<u8>> {
        let name = prop_oneof![Just("disk".to_owned()), "[a-z:-]{0,20}"];
        let query = prop_oneof![Just("base:allocation".to_owned()), Just("qemu:".to_owned()), "[a-z:0-9-]{0,30}"];
        let text = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
        let context = (name.clone(), prop::collection::vec(query, 0..20)).prop_map(move |(name, queries)| {
            let count = (queries.len() as u32).to_be_bytes().to_vec();
            [text(&name), count, queries.iter().flat_map(|query| text(query)).collect()].concat()
        });
        let go = (name, prop::collection::vec(0_u16..5, 0..9)).prop_map(move |(name, infos)| {
            let count = (infos.len() as u16).to_be_bytes().to_vec();
            [text(&name), count, infos.iter().flat_map(|info| info.to_be_bytes()).collect()].concat()
        });
        prop_oneof![Just(Vec::new()), any::<Vec<u8>>(), context, go]
    }

    proptest! {
        #[test]
        fn prop_any_options_get_bounded_answers_that_end(
            options in prop::collection::vec((0_u32..14, any_data()), 1..30),
            tls in prop_oneof![Just(Tls::Off), Just(Tls::Offered), Just(Tls::Required), Just(Tls::Active)],
        ) {
            let exports = Many(3);
            let mut negotiation = negotiation(&exports, tls);
            for (option, data) in options {
                let mut out = Vec::new();
                let step = negotiation.answer(option, &data, &mut out);
                prop_assert!(out.len() <= ANSWER_BYTES_MAX);
                if let Step::Transmit(session) = &step {
                    prop_assert!(tls != Tls::Required && session.contexts.len() <= CONTEXTS_MAX);
                    prop_assert!(session.contexts.is_empty() || session.framing != Framing::Simple);
                }
                // Whole answers, the last of which ends the option.
                let (mut cursor, mut last) = (Cursor(&out), None);
                while option != option::EXPORT_NAME && !cursor.0.is_empty() {
                    prop_assert_eq!(cursor.u64(), Some(wire::OPTION_REPLY_MAGIC));
                    prop_assert_eq!(cursor.u32(), Some(option));
                    last = cursor.u32();
                    let len = cursor.u32().expect("a length") as usize;
                    cursor.0 = &cursor.0[len..];
                }
                let ends = last.is_none_or(|kind| kind == option_reply::ACK || kind >> 31 == 1);
                prop_assert!(ends && (last.is_some() || option == option::EXPORT_NAME));
            }
        }
    }

    #[test]
    fn a_list_of_exports_ends_at_its_bound() {
        let exports = Many(1000);
        let mut out = Vec::new();
        negotiation(&exports, Tls::Off).answer(option::LIST, &[], &mut out);
        assert!(out.len() <= ANSWER_BYTES_MAX + wire::OPTION_HEADER_BYTES + 4 && out.len() > ANSWER_BYTES_MAX - 9000);
        assert_eq!(out[out.len() - 8..][..4], option_reply::ACK.to_be_bytes());
    }

    #[test]
    fn unknown_flags_of_a_client_are_no_common_language() {
        assert!(Negotiation::new(&Many(0), &CLIENT, Tls::Off, 1 << 20, 7).is_err());
    }

    #[test]
    fn contexts_hold_for_the_export_that_they_were_selected_for() {
        let exports = Many(0);
        let mut negotiation = negotiation(&exports, Tls::Active);
        let mut out = Vec::new();
        negotiation.answer(option::STRUCTURED_REPLY, &[], &mut out);
        let set = b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation";
        negotiation.answer(option::SET_META_CONTEXT, set, &mut out);
        let contexts = |negotiation: &Negotiation<'_>, name| {
            negotiation.session(name, Arc::new(MemoryVolume::new(512).expect("small"))).contexts.len()
        };
        assert_eq!((contexts(&negotiation, "disk"), contexts(&negotiation, "disc")), (1, 0));
        negotiation.answer(option::SET_META_CONTEXT, b"broken", &mut out);
        assert_eq!(contexts(&negotiation, "disk"), 0, "a refused selection ends the one before");
        negotiation.answer(option::SET_META_CONTEXT, set, &mut out);
        let negotiation = negotiation.secured(&CLIENT);
        assert_eq!((contexts(&negotiation, "disk"), negotiation.framing), (0, Framing::Simple));
    }
}
