//! `postrider demo`: a node on loopback with everything needed to try it.

use crate::exit::Failure;
use crate::logging::{self, LogFormat};
use crate::serve::{self, Signals};
use crate::token;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use postrider_model::{Millis, UserId};
use postrider_server::auth::{ApiKeyConfig, Scope};
use postrider_server::config::{Config, LogLevel, Secret};
use postrider_server::{DemoPage, Node, StartError};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use tokio::runtime::Handle;

/// How long the demo's tokens are good.
const TOKEN_TTL: Millis = Millis::from_secs(24 * 3600);
/// How long a user who is gone counts as present: short, since somebody is looking.
const LINGER: Millis = Millis::from_secs(1);
/// Who there is.
const USERS: [&str; 2] = ["ada", "bob"];

/// Arguments of `demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// The address to listen on; by default 127.0.0.1:8080, or a free port if that is taken
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How logs and what to paste are written
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// What the demo hands out.
struct Hand {
    api_key: String,
    tokens: Vec<String>,
}

impl Hand {
    fn users(&self) -> Value {
        USERS
            .iter()
            .zip(&self.tokens)
            .map(|(name, token)| ((*name).to_owned(), json!(token)))
            .collect()
    }
}

/// Runs until a signal; the data directory goes with it.
pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    // A demo's log is for what goes wrong; its output is on standard output.
    let level = if args.log_format == LogFormat::Json {
        LogLevel::Info
    } else {
        LogLevel::Warn
    };
    logging::start(args.log_format, level);
    let data = tempfile::Builder::new()
        .prefix("postrider-demo-")
        .tempdir()
        .context("no temporary directory")?;
    let (config, hand) = prepare(data.path(), args.listen)?;
    let page = DemoPage::new(&json!({"api_key": hand.api_key, "users": hand.users()}));
    let runtime = serve::runtime()?;
    let node = start(config, &page, args.listen.is_some(), runtime.handle())?;
    let signals = {
        let _entered = runtime.enter();
        Signals::watch()?
    };
    if args.log_format == LogFormat::Json {
        serve::say_ready(&node, args.log_format)?;
    }
    say_demo(&node, &hand, args.log_format)?;
    let done = runtime.block_on(serve::run_until_signal(node, signals, None));
    data.close().context("the temporary directory stays behind")?;
    done
}

fn prepare(data: &Path, listen: Option<SocketAddr>) -> anyhow::Result<(Config, Hand)> {
    let (secret, api_key) = (random()?, random()?);
    let mut config = Config {
        data_dir: data.join("data"),
        ..Config::default()
    };
    config.http.listen = listen.unwrap_or(config.http.listen);
    config.ops.listen.set_port(0);
    config.topics.open = vec!["*".into()];
    config.presence.linger = LINGER;
    config.auth.jwt.hmac_secret = Some(Secret::new(secret.clone()));
    config.auth.api_keys = vec![ApiKeyConfig {
        name: "demo".into(),
        key: Secret::new(api_key.clone()),
        scopes: Scope::ALL.to_vec(),
    }];
    let mut tokens = Vec::new();
    for name in USERS {
        tokens.push(token::mint(
            &config,
            &secret,
            &UserId::new(name)?,
            TOKEN_TTL,
            &[],
        )?);
    }
    Ok((config, Hand { api_key, tokens }))
}

/// On the usual port, or on a free one where that is taken and nobody insisted.
fn start(config: Config, page: &DemoPage, is_chosen: bool, runtime: &Handle) -> Result<Node, Failure> {
    let usual = config.http.listen;
    match Node::start(config.clone(), Some(page.clone()), runtime.clone()) {
        Err(StartError::Listen {
            key: "http.listen",
            source,
            ..
        }) if !is_chosen && source.kind() == std::io::ErrorKind::AddrInUse => {
            eprintln!("note: {usual} is taken, so the demo uses a free port");
            let mut config = config;
            config.http.listen.set_port(0);
            Node::start(config, Some(page.clone()), runtime.clone()).map_err(serve::start_failure)
        }
        started => started.map_err(serve::start_failure),
    }
}

fn say_demo(node: &Node, hand: &Hand, format: LogFormat) -> anyhow::Result<()> {
    let url = format!("http://{}", node.http());
    let text = match format {
        LogFormat::Json => {
            let page = format!("{url}/demo");
            json!({"event": "demo", "page": page, "api_key": hand.api_key, "users": hand.users()}).to_string()
        }
        LogFormat::Text => {
            let Hand { api_key, tokens } = hand;
            let [ada, bob] = [&tokens[0], &tokens[1]];
            // As it was started: cargo does not put it on the path.
            let program = std::env::args().next().unwrap_or_else(|| "postrider".into());
            PASTE
                .replace("{program}", &program)
                .replace("{url}", &url)
                .replace("{key}", api_key)
                .replace("{ada}", ada)
                .replace("{bob}", bob)
        }
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

const PASTE: &str = r#"
  Postrider is running. Open the page:  {url}/demo
                        Read the API:   {url}/docs
  Ctrl-C stops it, and everything in it is gone.

  Or paste this into another terminal:

URL={url}
KEY={key}
ADA={ada}
BOB={bob}

# send something to Ada
curl -sS "$URL/v1/notifications" -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
  -d '{"users": ["ada"], "subject": "Order shipped", "data": {"order": 7}}'

# fetch it, waiting up to 30 s (long poll)
curl -sS "$URL/v1/inbox?wait=30" -H "Authorization: Bearer $ADA"

# watch what comes (SSE)
curl -sSN "$URL/v1/inbox/stream" -H "Authorization: Bearer $BOB"

# send something to everyone
curl -sS "$URL/v1/notifications" -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
  -d '{"subject": "Hello all", "data": "hello"}'

# the same with this program
{program} listen --url "$URL" --token "$BOB"
{program} publish --url "$URL" --key "$KEY" --to bob --subject 'Hello Bob' --data '{"n": 1}'
"#;

/// 32 random bytes as text.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
