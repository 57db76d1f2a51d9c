//! What each path answers.

use super::token::Token;
use crate::explain::Problem;
use crate::observe::Metrics;
use crate::observe::probe::Probe;
use crate::supervisor::Input;
use crate::supervisor::control::{Answer, Asked, Question, Status};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long PID 1's loop may take to say what it does. It takes microseconds.
const LOOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long a request for a save is waited for, in case it is refused or done at once.
const SAVE_PATIENCE: Duration = Duration::from_secs(2);
/// Answers that wait for us.
const BACKLOG: usize = 32;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// What `prometheus-client` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where questions are answered.
pub(super) struct Desk {
    pub(super) metrics: Metrics,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) token: Option<Token>,
}

/// Answers one request.
pub(super) async fn answer<B: Body>(request: &Request<B>, desk: &Desk) -> Response<Full<Bytes>> {
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/livez" if reading => probe(Probe::Live, desk).await,
        "/readyz" if reading => probe(Probe::Ready, desk).await,
        "/startupz" if reading => probe(Probe::Startup, desk).await,
        "/metrics" if reading => match status(desk).await {
            Some(status) => say(StatusCode::OK, OPEN_METRICS, desk.metrics.text(&status)),
            None => silent(),
        },
        "/status" if reading => match status(desk).await {
            Some(status) => say(StatusCode::OK, JSON, serde_json::to_string(&status).unwrap_or_default()),
            None => silent(),
        },
        "/checkpoint" if request.method() == Method::POST => checkpoint(request, desk).await,
        "/checkpoint" => not_allowed("POST"),
        "/livez" | "/readyz" | "/startupz" | "/metrics" | "/status" => not_allowed("GET, HEAD"),
        _ => say(StatusCode::NOT_FOUND, TEXT, "/livez /readyz /startupz /metrics /status\n".to_owned()),
    }
}

async fn probe(probe: Probe, desk: &Desk) -> Response<Full<Bytes>> {
    let Some(status) = status(desk).await else { return silent() };
    let health = probe.judge(&status);
    let code = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    say(code, TEXT, health.reason + "\n")
}

async fn checkpoint<B: Body>(request: &Request<B>, desk: &Desk) -> Response<Full<Bytes>> {
    let Some(token) = &desk.token else {
        let why = "revenant was started without a token, so nobody may ask for saves over HTTP\n";
        return say(StatusCode::FORBIDDEN, TEXT, why.to_owned());
    };
    if !token.opens(request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes)) {
        return say(StatusCode::UNAUTHORIZED, TEXT, "Authorization: Bearer TOKEN\n".to_owned());
    }
    let stop = match request.uri().query() {
        None | Some("" | "stop=false") => false,
        Some("stop=true") => true,
        Some(_) => return say(StatusCode::BAD_REQUEST, TEXT, "only ?stop=true is known\n".to_owned()),
    };
    let Some(mut answers) = ask(Question::Checkpoint { stop }, desk).await else { return silent() };
    let told = tokio::time::timeout(SAVE_PATIENCE, last(&mut answers)).await;
    match told {
        Ok(Some(Answer::Durable(saved))) => say(StatusCode::OK, JSON, json(&Answer::Durable(saved))),
        Ok(Some(Answer::Failed { problem })) => refused(problem),
        // It goes on: /status tells how far it is.
        Err(_) => say(StatusCode::ACCEPTED, JSON, "{\"answer\":\"accepted\"}".to_owned()),
        Ok(_) => silent(),
    }
}

/// The last answer.
async fn last(answers: &mut mpsc::Receiver<Answer>) -> Option<Answer> {
    let mut newest = None;
    while let Some(answer) = answers.recv().await {
        newest = Some(answer);
    }
    newest
}

async fn status(desk: &Desk) -> Option<Status> {
    let mut answers = ask(Question::Status, desk).await?;
    match tokio::time::timeout(LOOP_PATIENCE, answers.recv()).await {
        Ok(Some(Answer::Status(status))) => Some(*status),
        _ => None,
    }
}

async fn ask(question: Question, desk: &Desk) -> Option<mpsc::Receiver<Answer>> {
    let (answers, queue) = mpsc::channel(BACKLOG);
    let asked = Input::Asked(Asked { question, answers });
    tokio::time::timeout(LOOP_PATIENCE, desk.inputs.send(asked)).await.ok()?.ok()?;
    Some(queue)
}

fn json(answer: &Answer) -> String {
    serde_json::to_string(answer).unwrap_or_default()
}

fn refused(problem: Problem) -> Response<Full<Bytes>> {
    say(StatusCode::CONFLICT, JSON, json(&Answer::Failed { problem }))
}

/// PID 1's loop does not answer: it ends just now.
fn silent() -> Response<Full<Bytes>> {
    say(StatusCode::SERVICE_UNAVAILABLE, TEXT, "revenant is ending\n".to_owned())
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = say(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("{methods} only\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn say(code: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
