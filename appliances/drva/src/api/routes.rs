//! Every path of the API, and its OpenAPI document, from one definition.

use super::extract::{Path, Query, Sent};
use super::reply::{Refusal, Reply, carry_through, look_up};
use crate::control::Control;
use axum::Json;
use axum::extract::State;
use axum::http::{Method, Uri, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::{Arc, LazyLock};
use tidemark_api::{
    ApplianceStatus, AttachRequest, BookmarkMade, BookmarkRequest, DiskAddress, DiskSpec, DiskStatus, DomainSpec,
    DomainStatus, DrainRequest, Drained, EventPage, EventQuery, ModeRequest, Problem, ProblemKind, Recorded,
    RemoveQuery, Removed, ResizeRequest, SeedRequest, Settings, SettingsPatch, TakeoverRequest, VmConfigRequest,
};
use tidemark_telemetry::CONTENT_TYPE;
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What every handler has.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) control: Arc<dyn Control>,
    /// True once the API stops.
    pub(super) stopping: watch::Receiver<bool>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidemark DRVA",
        description = "Control of a DR virtual appliance, over its unix socket. Members are only ever added; requests with unknown \
                       members are refused. What goes wrong is `application/problem+json` with a `kind` to match on.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "http://tidemark", description = "the unix socket, /run/tidemark/drva.sock by default")),
    components(schemas(Problem)),
)]
struct Description;

/// The OpenAPI document of the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(|| described().split_for_parts().1);
    let mut document = DOCUMENT.clone();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            may_fail(operation);
        }
    }
    document
}

/// Any operation may end in a problem.
fn may_fail(operation: &mut Operation) {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description("What went wrong.");
    let response = response.content("application/problem+json", problem).build();
    operation.responses.responses.insert("default".to_owned(), response.into());
}

pub(super) fn router(shared: Shared) -> axum::Router {
    let (router, _) = described().split_for_parts();
    router
        .route("/v1/openapi.json", get(async || Json(openapi())))
        .route("/metrics", get(metrics))
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .with_state(shared)
}

/// Only what scrapers need.
pub(super) fn metrics_router(shared: Shared) -> axum::Router {
    axum::Router::new().route("/metrics", get(metrics)).with_state(shared)
}

/// What is measured, as OpenMetrics text: its own format, so not a path of the API's document.
async fn metrics(State(shared): State<Shared>) -> Result<impl IntoResponse, Refusal> {
    let Json(text) = look_up(async move { shared.control.metrics().await }).await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

fn described() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(status))
        .routes(routes!(events))
        .routes(routes!(domain_add))
        .routes(routes!(domain, domain_remove))
        .routes(routes!(settings, change_settings))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(drain))
        .routes(routes!(takeover))
        .routes(routes!(bookmark))
        .routes(routes!(vm_config))
        .routes(routes!(disk_add))
        .routes(routes!(disk, disk_remove))
        .routes(routes!(disk_resize))
        .routes(routes!(disk_mode))
        .routes(routes!(seed))
        .routes(routes!(attach))
        .routes(routes!(detach))
}

async fn nothing_here(uri: Uri) -> Refusal {
    let problem = Problem::new(ProblemKind::NotFound, format!("nothing is at {}", uri.path()));
    problem.hint("GET /v1/openapi.json lists every path").into()
}

async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let problem = Problem::new(ProblemKind::MethodNotAllowed, format!("{} does not take {method}", uri.path()));
    problem.hint("GET /v1/openapi.json lists every path and method").into()
}

/// How the appliance, its domains and disks are doing
#[utoipa::path(
    get, path = "/v1/status", tag = "status",
    responses((status = 200, description = "Status", body = ApplianceStatus))
)]
async fn status(State(shared): State<Shared>) -> Reply<ApplianceStatus> {
    look_up(async move { shared.control.status().await }).await
}

/// What happened, the oldest first; waits for news if asked to
#[utoipa::path(
    get, path = "/v1/events", tag = "status",
    params(EventQuery),
    responses((status = 200, description = "Events", body = EventPage))
)]
async fn events(State(shared): State<Shared>, Query(query): Query<EventQuery>) -> Reply<EventPage> {
    let mut stopping = shared.stopping.clone();
    look_up(async move {
        tokio::select! {
            page = shared.control.events(query) => page,
            _ = stopping.wait_for(|stopping| *stopping) => {
                Err(Problem::new(ProblemKind::Unavailable, "the appliance is stopping"))
            }
        }
    })
    .await
}

/// Protect a domain from now on, also after a restart
#[utoipa::path(
    post, path = "/v1/domains", tag = "domains",
    request_body = DomainSpec,
    responses((status = 200, description = "It is being opened", body = DomainStatus))
)]
async fn domain_add(State(shared): State<Shared>, Sent(spec): Sent<DomainSpec>) -> Reply<DomainStatus> {
    carry_through(async move { shared.control.domain_add(spec).await }).await
}

/// How a domain is doing
#[utoipa::path(
    get, path = "/v1/domains/{domain}", tag = "domains",
    params(("domain" = String, Path)),
    responses((status = 200, description = "Status", body = DomainStatus))
)]
async fn domain(State(shared): State<Shared>, Path(domain): Path<String>) -> Reply<DomainStatus> {
    look_up(async move { shared.control.domain(&domain).await }).await
}

/// Stop protecting a domain here; its history in the bucket stays
#[utoipa::path(
    delete, path = "/v1/domains/{domain}", tag = "domains",
    params(("domain" = String, Path), RemoveQuery),
    responses((status = 200, description = "It is no longer protected here", body = Removed))
)]
async fn domain_remove(
    State(shared): State<Shared>,
    Path(domain): Path<String>,
    Query(how): Query<RemoveQuery>,
) -> Reply<Removed> {
    carry_through(async move { shared.control.domain_remove(&domain, how).await }).await
}

/// The settings in force
#[utoipa::path(
    get, path = "/v1/domains/{domain}/settings", tag = "domains",
    params(("domain" = String, Path)),
    responses((status = 200, description = "Settings", body = Settings))
)]
async fn settings(State(shared): State<Shared>, Path(domain): Path<String>) -> Reply<Settings> {
    look_up(async move { shared.control.settings(&domain).await }).await
}

/// Change settings, also after a restart
#[utoipa::path(
    patch, path = "/v1/domains/{domain}/settings", tag = "domains",
    params(("domain" = String, Path)), request_body = SettingsPatch,
    responses((status = 200, description = "The settings in force", body = Settings))
)]
async fn change_settings(
    State(shared): State<Shared>,
    Path(domain): Path<String>,
    Sent(patch): Sent<SettingsPatch>,
) -> Reply<Settings> {
    carry_through(async move { shared.control.change_settings(&domain, patch).await }).await
}

/// Stop shipping; writes stay in the log
#[utoipa::path(
    post, path = "/v1/domains/{domain}/pause", tag = "domains",
    params(("domain" = String, Path)),
    responses((status = 200, description = "It is paused", body = DomainStatus))
)]
async fn pause(State(shared): State<Shared>, Path(domain): Path<String>) -> Reply<DomainStatus> {
    carry_through(async move { shared.control.pause(&domain).await }).await
}

/// Ship again
#[utoipa::path(
    post, path = "/v1/domains/{domain}/resume", tag = "domains",
    params(("domain" = String, Path)),
    responses((status = 200, description = "It goes on", body = DomainStatus))
)]
async fn resume(State(shared): State<Shared>, Path(domain): Path<String>) -> Reply<DomainStatus> {
    carry_through(async move { shared.control.resume(&domain).await }).await
}

/// Wait until everything acknowledged so far is in the bucket
#[utoipa::path(
    post, path = "/v1/domains/{domain}/drain", tag = "domains",
    params(("domain" = String, Path)), request_body = DrainRequest,
    responses((status = 200, description = "It is, or the time is over", body = Drained))
)]
async fn drain(
    State(shared): State<Shared>,
    Path(domain): Path<String>,
    Sent(request): Sent<DrainRequest>,
) -> Reply<Drained> {
    carry_through(async move { shared.control.drain(&domain, request).await }).await
}

/// Take the domain over again from whoever owns it now
#[utoipa::path(
    post, path = "/v1/domains/{domain}/takeover", tag = "domains",
    params(("domain" = String, Path)), request_body = TakeoverRequest,
    responses((status = 200, description = "It is being opened", body = DomainStatus))
)]
async fn takeover(
    State(shared): State<Shared>,
    Path(domain): Path<String>,
    Sent(request): Sent<TakeoverRequest>,
) -> Reply<DomainStatus> {
    carry_through(async move { shared.control.takeover(&domain, request).await }).await
}

/// Name this moment
#[utoipa::path(
    post, path = "/v1/domains/{domain}/bookmarks", tag = "domains",
    params(("domain" = String, Path)), request_body = BookmarkRequest,
    responses((status = 200, description = "It is in the bucket", body = BookmarkMade))
)]
async fn bookmark(
    State(shared): State<Shared>,
    Path(domain): Path<String>,
    Sent(request): Sent<BookmarkRequest>,
) -> Reply<BookmarkMade> {
    carry_through(async move { shared.control.bookmark(&domain, request).await }).await
}

/// Record a VM's configuration
#[utoipa::path(
    put, path = "/v1/domains/{domain}/vms/{vm}/config", tag = "domains",
    params(("domain" = String, Path), ("vm" = String, Path)), request_body = VmConfigRequest,
    responses((status = 200, description = "It is in the bucket", body = Recorded))
)]
async fn vm_config(
    State(shared): State<Shared>,
    Path((domain, vm)): Path<(String, String)>,
    Sent(request): Sent<VmConfigRequest>,
) -> Reply<Recorded> {
    carry_through(async move { shared.control.vm_config(&domain, &vm, request).await }).await
}

/// Protect a disk from now on, also after a restart
#[utoipa::path(
    post, path = "/v1/domains/{domain}/disks", tag = "disks",
    params(("domain" = String, Path)), request_body = DiskSpec,
    responses((status = 200, description = "It is served", body = DiskStatus))
)]
async fn disk_add(
    State(shared): State<Shared>,
    Path(domain): Path<String>,
    Sent(spec): Sent<DiskSpec>,
) -> Reply<DiskStatus> {
    carry_through(async move { shared.control.disk_add(&domain, spec).await }).await
}

/// How a disk is doing
#[utoipa::path(
    get, path = "/v1/domains/{domain}/disks/{vm}/{disk}", tag = "disks",
    params(DiskAddress),
    responses((status = 200, description = "Status", body = DiskStatus))
)]
async fn disk(State(shared): State<Shared>, Path(disk): Path<DiskAddress>) -> Reply<DiskStatus> {
    look_up(async move { shared.control.disk(&disk).await }).await
}

/// Stop protecting a disk; its history in the bucket stays
#[utoipa::path(
    delete, path = "/v1/domains/{domain}/disks/{vm}/{disk}", tag = "disks",
    params(DiskAddress, RemoveQuery),
    responses((status = 200, description = "It is no longer protected", body = Removed))
)]
async fn disk_remove(
    State(shared): State<Shared>,
    Path(disk): Path<DiskAddress>,
    Query(how): Query<RemoveQuery>,
) -> Reply<Removed> {
    carry_through(async move { shared.control.disk_remove(&disk, how).await }).await
}

/// Change a disk's size
#[utoipa::path(
    post, path = "/v1/domains/{domain}/disks/{vm}/{disk}/resize", tag = "disks",
    params(DiskAddress), request_body = ResizeRequest,
    responses((status = 200, description = "It has that size", body = DiskStatus))
)]
async fn disk_resize(
    State(shared): State<Shared>,
    Path(disk): Path<DiskAddress>,
    Sent(request): Sent<ResizeRequest>,
) -> Reply<DiskStatus> {
    carry_through(async move { shared.control.disk_resize(&disk, request).await }).await
}

/// Change when a disk's writes are acknowledged
#[utoipa::path(
    post, path = "/v1/domains/{domain}/disks/{vm}/{disk}/mode", tag = "disks",
    params(DiskAddress), request_body = ModeRequest,
    responses((status = 200, description = "It has that mode", body = DiskStatus))
)]
async fn disk_mode(
    State(shared): State<Shared>,
    Path(disk): Path<DiskAddress>,
    Sent(request): Sent<ModeRequest>,
) -> Reply<DiskStatus> {
    carry_through(async move { shared.control.disk_mode(&disk, request).await }).await
}

/// Begin to ship what a disk holds
#[utoipa::path(
    post, path = "/v1/domains/{domain}/disks/{vm}/{disk}/seed", tag = "disks",
    params(DiskAddress), request_body = SeedRequest,
    responses((status = 200, description = "It began", body = DiskStatus))
)]
async fn seed(
    State(shared): State<Shared>,
    Path(disk): Path<DiskAddress>,
    Sent(request): Sent<SeedRequest>,
) -> Reply<DiskStatus> {
    carry_through(async move { shared.control.seed(&disk, request).await }).await
}

/// Tap a running VM
#[utoipa::path(
    post, path = "/v1/domains/{domain}/disks/{vm}/{disk}/attach", tag = "disks",
    params(DiskAddress), request_body = AttachRequest,
    responses((status = 200, description = "It began", body = DiskStatus))
)]
async fn attach(
    State(shared): State<Shared>,
    Path(disk): Path<DiskAddress>,
    Sent(request): Sent<AttachRequest>,
) -> Reply<DiskStatus> {
    carry_through(async move { shared.control.attach(&disk, request).await }).await
}

/// End a tap; the VM goes on with its own disk
#[utoipa::path(
    post, path = "/v1/domains/{domain}/disks/{vm}/{disk}/detach", tag = "disks",
    params(DiskAddress),
    responses((status = 200, description = "It ended", body = DiskStatus))
)]
async fn detach(State(shared): State<Shared>, Path(disk): Path<DiskAddress>) -> Reply<DiskStatus> {
    carry_through(async move { shared.control.detach(&disk).await }).await
}
