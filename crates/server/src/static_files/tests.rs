use super::*;
use http_body_util::BodyExt as _;

struct Site {
    _dir: tempfile::TempDir,
    files: StaticFiles,
    root: PathBuf,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("public_html");
    std::fs::create_dir_all(root.join("sub/.git")).unwrap();
    std::fs::create_dir_all(root.join("empty")).unwrap();
    for (name, text) in [
        ("public_html/index.html", "<p>home"),
        ("public_html/a b.txt", "spaced"),
        ("public_html/.env", "hidden"),
        ("public_html/sub/index.html", "<p>sub"),
        ("public_html/sub/.git/config", "hidden"),
        ("secret.txt", "outside"),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
    link("../secret.txt", "out.txt");
    link("sub/index.html", "in.html");
    link(".env", "env.txt");
    Site {
        files: StaticFiles::new(root.clone()).unwrap(),
        _dir: dir,
        root,
    }
}

async fn ask(site: &Site, method: Method, path: &str, headers: &[(HeaderName, &str)]) -> Option<Response> {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.clone(), value.parse().unwrap()))
        .collect();
    site.files.serve(&method, path, &headers).await
}

async fn text(site: &Site, path: &str) -> Option<String> {
    let response = ask(site, Method::GET, path, &[]).await?;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Some(String::from_utf8(body.into()).unwrap())
}

#[tokio::test]
async fn what_is_in_the_directory_is_served() {
    let site = site();
    for (path, expected) in [
        ("/", "<p>home"),
        ("/index.html", "<p>home"),
        ("/a%20b.txt", "spaced"),
        ("/sub/", "<p>sub"),
        ("//sub//index.html", "<p>sub"),
        ("/in.html", "<p>sub"),
    ] {
        assert_eq!(text(&site, path).await.as_deref(), Some(expected), "{path}");
    }
    let response = ask(&site, Method::GET, "/in.html", &[]).await.unwrap();
    let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header(header::CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(header(header::CONTENT_LENGTH), "6");
    assert_eq!(header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
}

#[tokio::test]
async fn nothing_else_is() {
    let site = site();
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/sub/../../secret.txt",
        "/..%2fsecret.txt",
        "/sub%2findex.html",
        "/..\\secret.txt",
        "/out.txt",
        "/.env",
        "/%2eenv",
        "/env.txt",
        "/sub/.git/config",
        "/empty",
        "/empty/",
        "/none",
        "/index.html/",
        "/index.html/more",
        "/a%00b",
        "/%zz",
        "/%",
        "*",
        &format!("/{}", "a".repeat(300)),
        &format!("/{}", "a".repeat(5000)),
    ] {
        assert!(ask(&site, Method::GET, path, &[]).await.is_none(), "{path}");
    }
    assert!(ask(&site, Method::POST, "/", &[]).await.is_none());
}

#[tokio::test]
async fn a_directorys_address_ends_with_a_slash_and_never_names_a_host() {
    let site = site();
    for path in ["/sub", "//sub"] {
        let response = ask(&site, Method::GET, path, &[]).await.unwrap();
        assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
        assert_eq!(response.headers()[header::LOCATION], "sub/");
    }
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let site = site();
    let first = ask(&site, Method::GET, "/", &[]).await.unwrap();
    let value = |name: HeaderName| first.headers()[name].to_str().unwrap().to_owned();
    let (etag, modified) = (value(header::ETAG), value(header::LAST_MODIFIED));
    assert!(modified.ends_with(" GMT"), "{modified}");
    let weak = format!("\"other\", W/{etag}");
    let old = "Thu, 01 Jan 1970 00:00:01 GMT";
    for (headers, status) in [
        (vec![(header::IF_NONE_MATCH, etag.as_str())], 304),
        (vec![(header::IF_NONE_MATCH, &*weak)], 304),
        (vec![(header::IF_NONE_MATCH, "*")], 304),
        (vec![(header::IF_NONE_MATCH, "\"other\"")], 200),
        (vec![(header::IF_MODIFIED_SINCE, modified.as_str())], 304),
        (vec![(header::IF_MODIFIED_SINCE, old)], 200),
        (vec![(header::IF_MODIFIED_SINCE, "yesterday")], 200),
        (
            vec![
                (header::IF_NONE_MATCH, "\"other\""),
                (header::IF_MODIFIED_SINCE, &*modified),
            ],
            200,
        ),
    ] {
        let response = ask(&site, Method::GET, "/", &headers).await.unwrap();
        assert_eq!(response.status(), status, "{headers:?}");
        let length = response.into_body().collect().await.unwrap().to_bytes().len();
        assert_eq!(length, if status == 304 { 0 } else { 7 });
    }
    let head = ask(&site, Method::HEAD, "/", &[]).await.unwrap();
    assert_eq!(head.headers()[header::CONTENT_LENGTH], "7");
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn a_large_file_comes_whole_and_one_that_shrank_is_cut_off() {
    let site = site();
    let bytes: Vec<u8> = (0..200_001u32).map(|n| n as u8).collect();
    let path = site.root.join("large.bin");
    std::fs::write(&path, &bytes).unwrap();
    let whole = ask(&site, Method::GET, "/large.bin", &[]).await.unwrap();
    assert!(whole.into_body().collect().await.unwrap().to_bytes() == bytes);
    let cut = ask(&site, Method::GET, "/large.bin", &[]).await.unwrap();
    std::fs::write(&path, &bytes[..100]).unwrap();
    assert!(cut.into_body().collect().await.is_err());
}
