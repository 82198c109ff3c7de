use super::{Bgp, BgpState, Entered, Protocol, ProtocolState, Rpki};

/// Parses one row: name, type, table, state, since (one to three words), and the rest.
pub(super) fn parse(text: &str) -> Option<Protocol> {
    let mut rest = text;
    let (name, proto) = (word(&mut rest)?, word(&mut rest)?);
    let (table, state) = (word(&mut rest)?, word(&mut rest)?);
    let before = rest;
    let since = take_since(&mut rest);
    let entered = before.strip_suffix(rest).and_then(Entered::parse);
    let info = rest.trim().to_owned();
    let state = protocol_state(state);
    Some(Protocol {
        name: name.to_owned(),
        proto: proto.to_owned(),
        table: (table != "---").then(|| table.to_owned()),
        bgp: (proto == "BGP").then(|| Bgp {
            state: state_in_row(&state, &info),
            entered,
            ..Bgp::default()
        }),
        rpki: (proto == "RPKI").then(Rpki::default),
        state,
        since,
        info,
        description: None,
        message: None,
        channels: Vec::new(),
    })
}

fn word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let text = rest.trim_start();
    let (word, after) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    *rest = after;
    (!word.is_empty()).then_some(word)
}

/// Removes `15:08:44.264`, `2026-11-22`, `2026-11-23 15:18:23.361`, the same with `+0000`, or
/// `1795447104.000123`, and returns the seconds of the last form.
fn take_since(rest: &mut &str) -> Option<i64> {
    let first = word(rest)?;
    if is_date(first) {
        let _zone = take_if(rest, is_time) && take_if(rest, is_zone);
        return None;
    }
    first.split('.').next()?.parse().ok()
}

fn take_if(rest: &mut &str, is: fn(&str) -> bool) -> bool {
    let mut after = *rest;
    let taken = word(&mut after).is_some_and(is);
    if taken {
        *rest = after;
    }
    taken
}

fn is_date(word: &str) -> bool {
    word.len() == 10
        && word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-')
        && word.matches('-').count() == 2
}

fn is_time(word: &str) -> bool {
    word.matches(':').count() == 2
        && word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'))
}

fn is_zone(word: &str) -> bool {
    word.len() == 5
        && word.starts_with(['+', '-'])
        && word[1..].bytes().all(|byte| byte.is_ascii_digit())
}

fn protocol_state(word: &str) -> ProtocolState {
    match word {
        "up" => ProtocolState::Up,
        "start" => ProtocolState::Start,
        "down" => ProtocolState::Down,
        "stop" => ProtocolState::Stop,
        "flush" => ProtocolState::Flush,
        other => ProtocolState::Other(other.to_owned()),
    }
}

/// A protocol that is down has no BGP state in its row, only its last error (measured).
fn state_in_row(state: &ProtocolState, info: &str) -> BgpState {
    match (state, info.split_whitespace().next()) {
        (ProtocolState::Down, _) | (_, None) => BgpState::Down,
        (_, Some(word)) => bgp_state(word),
    }
}

pub(super) fn bgp_state(word: &str) -> BgpState {
    match word {
        "Idle" => BgpState::Idle,
        "Connect" => BgpState::Connect,
        "Active" => BgpState::Active,
        "OpenSent" => BgpState::OpenSent,
        "OpenConfirm" => BgpState::OpenConfirm,
        "Established" => BgpState::Established,
        "Close" => BgpState::Close,
        "Passive" => BgpState::Passive,
        "Down" => BgpState::Down,
        other => BgpState::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn since_is_one_to_three_words() {
        let cases = [
            ("p BGP --- start 15:08:44.264 Active Socket: x", None),
            ("p BGP --- start 2026-11-22 Active Socket: x", None),
            (
                "p BGP --- start 2026-11-23 15:18:23.361  Active Socket: x",
                None,
            ),
            (
                "p BGP --- start 2026-11-23 15:18:26.819 +0000  Active Socket: x",
                None,
            ),
            (
                "p BGP --- start 1795447104    Active Socket: x",
                Some(1_795_447_104),
            ),
            (
                "p BGP --- start 1795447104.000123  Active Socket: x",
                Some(1_795_447_104),
            ),
        ];
        for (text, since) in cases {
            let row = parse(text).unwrap();
            assert_eq!(
                (row.since, row.info.as_str()),
                (since, "Active Socket: x"),
                "{text}"
            );
            assert_eq!(row.bgp.unwrap().state, BgpState::Active);
        }
    }

    #[test]
    fn columns_do_not_matter() {
        let row =
            parse("averyveryverylongname Static     averyverylongtablename up     1795447104    ")
                .unwrap();
        assert_eq!(row.table.as_deref(), Some("averyverylongtablename"));
        assert_eq!((row.state, row.info.as_str()), (ProtocolState::Up, ""));
    }

    #[test]
    fn error_of_a_down_protocol_is_not_a_bgp_state() {
        let row =
            parse("p BGP --- down 1795447104 Automatic shutdown: Route limit exceeded").unwrap();
        assert_eq!(row.bgp.unwrap().state, BgpState::Down);
    }

    proptest! {
        #[test]
        fn random_rows_never_panic(text: String) {
            parse(&text);
        }
    }
}
