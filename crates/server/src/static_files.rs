//! Serves the files of one directory, where the API has nothing at a path.
//!
//! Invariant: nothing outside of the directory is served, by whatever path or symbolic link, and nothing whose name,
//! or the name of a directory on the way, begins with a dot. No list of a directory is ever made.
//!
//! Files are read by one thread of its own, a piece at a time, as each client takes what it got before: disks are
//! slow, and nothing else may wait for them.

mod media_type;
mod reader;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};
use postrider_model::LogPace;
use reader::{FileBody, Reader};
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What a directory's own address shows.
const INDEX: &str = "index.html";
/// How long a path may be, decoded. Bytes.
const MAX_PATH: usize = 4096;

/// A directory that is served.
pub struct StaticFiles {
    root: PathBuf,
    reader: Reader,
    unreadable: LogPace,
}

/// What is at a path.
#[derive(Debug)]
enum Found {
    File {
        file: File,
        meta: Box<Metadata>,
        name: PathBuf,
    },
    /// Its address lacks the slash at the end.
    Directory,
    Nothing,
}

impl StaticFiles {
    /// Serves what is below `root`, which may come to be there later.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn new(root: PathBuf) -> io::Result<StaticFiles> {
        Ok(StaticFiles {
            root,
            reader: Reader::start()?,
            unreadable: LogPace::new(),
        })
    }

    /// Answers a request; `None` where nothing is there, or it is no `GET` or `HEAD`.
    pub async fn serve(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response> {
        if method != Method::GET && method != Method::HEAD {
            return None;
        }
        let (relative, root) = (relative(path)?, self.root.clone());
        let is_directory = path.ends_with('/');
        let found = self
            .reader
            .run(move || find(&root, &relative, is_directory))
            .await;
        match found {
            Ok(Ok(Found::File { file, meta, name })) => {
                Some(self.answer(method, file, &meta, &name, headers))
            }
            Ok(Ok(Found::Directory)) => Some(to_directory(path)),
            Ok(Ok(Found::Nothing)) => None,
            Ok(Err(error)) => {
                if let Some(unsaid) = self.unreadable.due(crate::now()) {
                    tracing::warn!(%error, unsaid, "a static file could not be read");
                }
                None
            }
            Err(reader::Busy) => Some(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        }
    }

    fn answer(
        &self,
        method: &Method,
        file: File,
        meta: &Metadata,
        name: &Path,
        asked: &HeaderMap,
    ) -> Response {
        let stamp = Stamp::of(meta);
        let is_fresh = stamp.is_what_client_has(asked);
        let body = match (is_fresh, method == Method::HEAD) {
            (false, false) => Body::new(FileBody::new(file, meta.len(), self.reader.clone())),
            _ => Body::empty(),
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        put(headers, header::ETAG, &stamp.etag);
        put(headers, header::LAST_MODIFIED, &stamp.modified);
        // It may be kept, and is asked for again each time, which costs a 304.
        put(headers, header::CACHE_CONTROL, "no-cache");
        if is_fresh {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        put(headers, header::CONTENT_LENGTH, &meta.len().to_string());
        put(headers, header::CONTENT_TYPE, media_type::of(name));
        // What a browser makes of it is what it is said to be.
        put(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        response
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn to_directory(path: &str) -> Response {
    let mut response = StatusCode::MOVED_PERMANENTLY.into_response();
    // Only the last segment: an address that began with two slashes would name another host.
    let last = path.rsplit('/').next().unwrap_or_default();
    put(response.headers_mut(), header::LOCATION, &format!("{last}/"));
    response
}

/// The place of a URL's path below the root: each segment decoded by itself, so that no escape makes a separator.
/// `None` for what no file served here can have.
fn relative(path: &str) -> Option<PathBuf> {
    if path.len() > MAX_PATH {
        return None;
    }
    let mut relative = PathBuf::new();
    for segment in path
        .strip_prefix('/')?
        .split('/')
        .filter(|segment| !segment.is_empty())
    {
        let name = decode(segment)?;
        // A dot at the beginning: hidden files, `.` and `..`.
        if name.starts_with('.') || name.contains(['/', '\\', '\0', ':']) {
            return None;
        }
        relative.push(name);
    }
    Some(relative)
}

fn decode(segment: &str) -> Option<String> {
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(bytes.next()?)? * 16 + digit(bytes.next()?)?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// Opens what is there. Links are followed as long as they stay below the root and lead to nothing hidden.
fn find(root: &Path, relative: &Path, is_directory: bool) -> io::Result<Found> {
    let asked = match is_directory || relative.as_os_str().is_empty() {
        true => root.join(relative).join(INDEX),
        false => root.join(relative),
    };
    let absent = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
        )
    };
    let real = match (root.canonicalize(), asked.canonicalize()) {
        (Ok(root), Ok(real)) => match real.strip_prefix(&root) {
            Ok(below) if !is_hidden(below) => real,
            _ => return Ok(Found::Nothing),
        },
        (Err(error), _) | (_, Err(error)) if absent(&error) => return Ok(Found::Nothing),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    // A file that is none (a pipe) must not be opened: that may wait for ever.
    let meta = real.metadata()?;
    if meta.is_dir() {
        return Ok(match real.join(INDEX).is_file() {
            true => Found::Directory,
            false => Found::Nothing,
        });
    }
    if !meta.is_file() {
        return Ok(Found::Nothing);
    }
    let file = File::open(&real)?;
    let meta = Box::new(file.metadata()?);
    Ok(Found::File {
        file,
        meta,
        name: asked,
    })
}

fn is_hidden(below: &Path) -> bool {
    below
        .iter()
        .any(|name| name.as_encoded_bytes().first() == Some(&b'.'))
}

/// By what a client can tell whether it has this file already.
struct Stamp {
    etag: String,
    modified: String,
    /// Seconds since 1970.
    seconds: i64,
}

impl Stamp {
    fn of(meta: &Metadata) -> Stamp {
        let since = meta
            .modified()
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let since = since.unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
        let modified = Timestamp::from_second(seconds)
            .ok()
            .and_then(|at| DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok());
        Stamp {
            etag: format!("\"{:x}-{:x}\"", since.as_nanos(), meta.len()),
            modified: modified.unwrap_or_default(),
            seconds,
        }
    }

    /// RFC 9110, 13.1.2 and 13.1.3: tags, if there are any, decide alone.
    fn is_what_client_has(&self, asked: &HeaderMap) -> bool {
        if asked.contains_key(header::IF_NONE_MATCH) {
            let tags = asked.get_all(header::IF_NONE_MATCH).iter();
            let mut tags = tags
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','));
            let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
            return tags.any(|tag| tag.trim() == "*" || bare(tag) == self.etag);
        }
        let since = asked
            .get(header::IF_MODIFIED_SINCE)
            .and_then(|value| value.to_str().ok());
        let since = since.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
        since.is_some_and(|since| self.seconds <= since.as_second())
    }
}

#[cfg(test)]
#[path = "static_files/tests.rs"]
mod tests;
