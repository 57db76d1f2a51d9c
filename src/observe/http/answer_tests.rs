use super::*;
use crate::exit::Exit;
use crate::supervisor::control::Phase;
use http_body_util::BodyExt;

const TOKEN: &str = "a token that nobody guesses";

/// A loop that answers as PID 1's does, in this phase; saves are refused.
fn desk(phase: Phase, token: Option<&str>) -> Desk {
    let (inputs, mut arriving) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(Input::Asked(asked)) = arriving.recv().await {
            let answer = match asked.question {
                Question::Status => Answer::Status(Box::new(Status { phase, ..Status::example() })),
                Question::Checkpoint { .. } => {
                    Answer::Failed { problem: Problem::new(Exit::Failure, "not now", "it ends", "wait") }
                }
            };
            let _ = asked.answers.send(answer).await;
        }
    });
    Desk {
        metrics: Metrics::new("assembly".parse().unwrap()),
        inputs,
        token: token.map(|text| Token::new(text).unwrap()),
    }
}

async fn get(method: Method, path: &str, authorization: Option<&str>, desk: &Desk) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value);
    }
    let response = answer(&request.body(Full::<Bytes>::default()).unwrap(), desk).await;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn probes_answer_by_phase() {
    let restoring = desk(Phase::Beginning, None);
    for (path, code) in [("/livez", 200), ("/readyz", 503), ("/startupz", 200)] {
        assert_eq!(get(Method::GET, path, None, &restoring).await.0, code, "{path}");
    }
    assert_eq!(get(Method::GET, "/readyz", None, &desk(Phase::Running, None)).await, (200, "running\n".into()));
}

#[tokio::test]
async fn saves_need_the_token() {
    let closed = desk(Phase::Running, None);
    assert_eq!(get(Method::POST, "/checkpoint", Some("Bearer "), &closed).await.0, 403);
    let open = desk(Phase::Running, Some(TOKEN));
    assert_eq!(get(Method::POST, "/checkpoint", None, &open).await.0, 401);
    assert_eq!(get(Method::POST, "/checkpoint", Some("Bearer guess"), &open).await.0, 401);
    let bearer = format!("Bearer {TOKEN}");
    let (code, text) = get(Method::POST, "/checkpoint", Some(&bearer), &open).await;
    assert_eq!(code, 409);
    assert!(text.contains("not now"), "{text}");
    assert_eq!(get(Method::POST, "/checkpoint?stop=maybe", Some(&bearer), &open).await.0, 400);
    assert_eq!(get(Method::GET, "/checkpoint", Some(&bearer), &open).await.0, 405);
}

#[tokio::test]
async fn status_and_metrics_are_what_they_say() {
    let desk = desk(Phase::Running, None);
    let (code, text) = get(Method::GET, "/status", None, &desk).await;
    assert_eq!((code, serde_json::from_str::<Status>(&text).unwrap().phase), (200, Phase::Running));
    let (code, text) = get(Method::GET, "/metrics", None, &desk).await;
    assert!(code == 200 && text.ends_with("# EOF\n"), "{text}");
    assert_eq!(get(Method::POST, "/metrics", None, &desk).await.0, 405);
    assert_eq!(get(Method::GET, "/", None, &desk).await.0, 404);
}

/// A loop that has ended leaves nobody waiting.
#[tokio::test]
async fn an_ending_entrypoint_is_not_alive() {
    let (inputs, arriving) = mpsc::channel(4);
    drop(arriving);
    let desk = Desk { metrics: Metrics::new("assembly".parse().unwrap()), inputs, token: None };
    assert_eq!(get(Method::GET, "/livez", None, &desk).await.0, 503);
}
