//! As much of HTTP/1.1 as clients of AWS speak: requests with a body of a known length, one after another.

use anyhow::Result;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A request is no longer than this.
const MOST: usize = 1 << 20;

/// A request.
pub struct Asked {
    pub path: String,
    /// What of the service: `AmazonSQS.ReceiveMessage`.
    pub target: String,
    pub body: Vec<u8>,
}

/// Who answers.
pub trait Site: Send + Sync + 'static {
    /// The answer's body.
    fn answer(&self, asked: Asked) -> impl Future<Output = String> + Send;
}

/// Answers what comes over one connection until it ends.
pub async fn serve(site: Arc<impl Site>, mut socket: TcpStream) -> Result<()> {
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        let (length, asked) = loop {
            if let Some(request) = parse(&buffer)? {
                break request;
            }
            anyhow::ensure!(buffer.len() < MOST, "too long");
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        buffer.drain(..length);
        let answer = site.answer(asked).await;
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        let whole = [head.as_bytes(), answer.as_bytes()].concat();
        socket.write_all(&whole).await?;
    }
}

/// A whole request, and its length.
fn parse(buffer: &[u8]) -> Result<Option<(usize, Asked)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(buffer)? else {
        return Ok(None);
    };
    let header = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|one| one.name.eq_ignore_ascii_case(name));
        found.map(|one| String::from_utf8_lossy(one.value).into_owned())
    };
    let length = header("content-length").map_or(Ok(0), |text| text.parse::<usize>())?;
    let Some(body) = buffer.get(head..head + length) else {
        return Ok(None);
    };
    let asked = Asked {
        path: request.path.unwrap_or_default().to_owned(),
        target: header("x-amz-target").unwrap_or_default(),
        body: body.to_vec(),
    };
    Ok(Some((head + length, asked)))
}
