//! What is a head, what is refused, and what its parts read as.

use super::*;
use proptest::prelude::*;

fn head(text: &str) -> Head<'_> {
    match parse(text.as_bytes()) {
        Parsed::Complete(head, length) if length == text.len() => head,
        other => panic!("{text:?} gave {other:?}"),
    }
}

fn refusal(text: &str) -> Problem {
    match parse(text.as_bytes()) {
        Parsed::Invalid(problem) => problem,
        other => panic!("{text:?} gave {other:?}"),
    }
}

#[test]
fn a_request_line_in_each_form() {
    for (target, path, query) in [
        ("/v1/inbox?wait=3&limit=1", "/v1/inbox", "wait=3&limit=1"),
        ("/a?b?c#d", "/a", "b?c"),
        ("/", "/", ""),
        ("http://h/v1/inbox?x", "/v1/inbox", "x"),
        ("HTTPS://h:1?x=/", "/", "x=/"),
        ("http://h", "/", ""),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nhost: h\r\n\r\n");
        let head = head(&text);
        assert_eq!((head.method, head.target), ("GET", target));
        assert_eq!((head.path, head.query), (path, query), "{target}");
    }
    assert_eq!(head("OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n").path, "*");
    assert_eq!(refusal("GET * HTTP/1.1\r\nhost: h\r\n\r\n").status, 400);
    assert_eq!(refusal("GET ftp://h/ HTTP/1.1\r\nhost: h\r\n\r\n").status, 400);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for headers in [
        "",
        "host: a\r\nHost: b\r\n",
        "host: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n",
        "host: a\r\ncontent-length: 1, 1\r\n",
        "host: a\r\ncontent-length: +1\r\n",
        "host: a\r\ncontent-length:\r\n",
        "host: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n",
        "host: a\r\nauthorization: Bearer x\r\nAuthorization: Bearer y\r\n",
        "host: a\r\nx : y\r\n",
        "host: a\r\nx: y\r\n folded\r\n",
    ] {
        let problem = refusal(&format!("GET / HTTP/1.1\r\n{headers}\r\n"));
        assert_eq!(
            (problem.status, problem.code),
            (400, "invalid_request"),
            "{headers:?}"
        );
    }
    assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive());
}

#[test]
fn bounds() {
    let many = "x: y\r\n".repeat(MAX_HEADERS);
    assert_eq!(
        refusal(&format!("GET / HTTP/1.1\r\nhost: h\r\n{many}\r\n")).status,
        431
    );
    let fits = format!(
        "GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n",
        "y".repeat(MAX_HEAD - 32)
    );
    assert_eq!(fits.len(), MAX_HEAD);
    assert_eq!(head(&fits).header("X").unwrap().len(), MAX_HEAD - 32);
    let over = fits.replacen("x: ", "x: y", 1);
    assert_eq!(refusal(&over).code, "head_too_large");
    assert_eq!(refusal(&over[..MAX_HEAD]).status, 431);
    assert!(matches!(parse(&over.as_bytes()[..MAX_HEAD - 1]), Parsed::Partial));
}

#[test]
fn http2_is_told_from_a_broken_head() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for n in 0..=preface.len() {
        let recognised = is_http2_preface(&preface[..n]);
        assert!(
            recognised || matches!(parse(&preface[..n]), Parsed::Partial),
            "{n} bytes"
        );
    }
    assert!(is_http2_preface(preface));
    assert!(!is_http2_preface(b"PRINT / HTTP/1.1"));
}

#[test]
fn headers_and_what_they_mean() {
    let text = "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUPGRADE: WebSocket\r\n\
        Cookie: a=1; pr=\"t.o=k\" \r\ncookie: pr=second\r\nContent-Length: 0\r\n\r\n";
    let head = head(text);
    assert_eq!(head.header("HOST"), Some("h"));
    assert_eq!(head.header("absent"), None);
    assert!(head.is_websocket_upgrade() && head.keep_alive() && !head.has_body());
    assert_eq!(
        (head.cookie("a"), head.cookie("pr"), head.cookie("p")),
        (Some("1"), Some("t.o=k"), None)
    );
}

#[test]
fn connection_and_body() {
    for (version, headers, keep_alive, body) in [
        (1, "", true, false),
        (1, "connection: Close\r\n", false, false),
        (0, "connection: Keep-Alive\r\n", true, false),
        (1, "content-length: 10\r\n", true, true),
        (1, "transfer-encoding: chunked\r\n", true, true),
    ] {
        let text = format!("POST / HTTP/1.{version}\r\nhost: h\r\n{headers}\r\n");
        let head = head(&text);
        assert_eq!(
            (head.keep_alive(), head.has_body()),
            (keep_alive, body),
            "{headers:?}"
        );
    }
}

#[test]
fn an_unreadable_header_is_there_but_matches_nothing() {
    let Parsed::Complete(head, _) = parse(b"GET / HTTP/1.1\r\nhost: h\r\norigin: \xff\r\n\r\n") else {
        panic!("refused");
    };
    assert_eq!(head.header("origin"), Some(UNREADABLE));
}

#[test]
fn parameters() {
    let text = "GET /?a=1+2%2b%C3%BC&b&%63=x&d=%zz&e=%ff&f=1&f=1&g=%4 HTTP/1.1\r\nhost: h\r\n\r\n";
    let head = head(text);
    let param = |name| head.param(name).map(|value| value.map(Cow::into_owned));
    assert_eq!(param("a").unwrap().as_deref(), Some("1 2+ü"));
    assert_eq!(param("b").unwrap().as_deref(), Some(""));
    assert_eq!(param("c").unwrap().as_deref(), Some("x"));
    assert_eq!(param("absent"), Ok(None));
    for broken in ["d", "e", "f", "g"] {
        assert_eq!(param(broken).unwrap_err().code, "invalid_request", "{broken}");
    }
}

#[test]
fn routes_are_exact() {
    assert_eq!(inbox_route("GET", "/v1/inbox"), Some(InboxRoute::Poll));
    assert_eq!(inbox_route("GET", "/v1/inbox/stream"), Some(InboxRoute::Stream));
    assert_eq!(inbox_route("GET", "/v1/inbox/ws"), Some(InboxRoute::WebSocket));
    for (method, path) in [
        ("POST", "/v1/inbox"),
        ("GET", "/v1/inbox/"),
        ("get", "/v1/inbox"),
        ("GET", "/v1/inbox/ack"),
    ] {
        assert_eq!(inbox_route(method, path), None, "{method} {path}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_and_a_cut_head_is_partial(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cut in 0usize..60,
    ) {
        if let Parsed::Complete(_, length) = parse(&bytes) {
            prop_assert!(length <= bytes.len());
        }
        let whole = b"GET /v1/inbox?cursor=x HTTP/1.1\r\nhost: localhost\r\nA: b\r\n\r\n";
        let cut = cut.min(whole.len() - 1);
        prop_assert!(matches!(parse(&whole[..cut]), Parsed::Partial));
    }
}
