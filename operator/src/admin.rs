//! One port for those who run the operator: `/healthz`, `/readyz`, `/metrics`, `/plan`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::json;
use sparkherd_planner::Plan;
use warp::Filter;
use warp::http::{Response, StatusCode};

use crate::metrics::Metrics;

/// What the loop shows and the port serves.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    ready: Arc<AtomicBool>,
    plan: Arc<RwLock<String>>,
    metrics: Metrics,
}

impl Admin {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { ready: Arc::default(), plan: Arc::new(RwLock::new("null".to_owned())), metrics }
    }

    /// Every store has been filled once.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(crate) fn set_plan(&self, plan: &Plan) {
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = plan_json(plan).to_string();
    }

    /// Serves until the future is dropped.
    pub(crate) async fn serve(self, listener: tokio::net::TcpListener) {
        let (ready, plan, metrics) = (self.clone(), self.clone(), self);
        let health = warp::path!("healthz").map(|| response(StatusCode::OK, "text/plain", b"ok\n".to_vec()));
        let ready = warp::path!("readyz").map(move || {
            if ready.ready.load(Ordering::Acquire) {
                response(StatusCode::OK, "text/plain", b"ok\n".to_vec())
            } else {
                response(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "text/plain",
                    b"stores are not filled yet\n".to_vec(),
                )
            }
        });
        let plan = warp::path!("plan").map(move || {
            let text = plan.plan.read().unwrap_or_else(PoisonError::into_inner).clone();
            response(StatusCode::OK, "application/json", text.into_bytes())
        });
        let metrics = warp::path!("metrics").map(move || match metrics.metrics.render() {
            Ok(text) => response(StatusCode::OK, prometheus::TEXT_FORMAT, text),
            Err(error) => {
                response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into_bytes())
            }
        });
        warp::serve(warp::get().and(health.or(ready).unify().or(plan).unify().or(metrics).unify()))
            .incoming(listener)
            .run()
            .await;
    }
}

/// Binds the port, so that a taken one is an error at start.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await
}

fn response(status: StatusCode, content_type: &str, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert("content-type", value);
    }
    response
}

/// The last plan with its reasons.
fn plan_json(plan: &Plan) -> serde_json::Value {
    let Plan { actions, report, reachable, recheck_at } = plan;
    let deployments = report.iter().map(|(id, report)| {
        let conditions = report.conditions.iter().map(|(type_, condition)| {
            let value = json!({
                "status": condition.status.as_str(), "reason": condition.reason.as_str(), "message": condition.message,
            });
            (type_.as_str().to_owned(), value)
        });
        let value = json!({
            "observedGeneration": report.observed_generation,
            "conditions": conditions.collect::<serde_json::Map<_, _>>(),
            "nodes": report.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        (id.to_string(), value)
    });
    json!({
        "actions": actions.iter().map(|action| json!({"kind": action.kind(), "detail": format!("{action:?}")})).collect::<Vec<_>>(),
        "deployments": deployments.collect::<serde_json::Map<_, _>>(),
        "reachable": reachable.iter().map(|(node, up)| (node.to_string(), json!(up))).collect::<serde_json::Map<_, _>>(),
        "recheckAt": recheck_at.map(|at| at.to_string()),
    })
}
