//! Open Inference Protocol v2 over HTTP, answered by verified servers; Triton's extensions by what these prove of themselves.

pub(crate) mod extensions;
mod openai;
mod receive;
mod route;
mod streamed;

use confonnx_client::{BoxError, ModelMetadata, ModelRef, Request as Sealed};
use http::{HeaderMap, Request, StatusCode, header};
use hyper::body::{Body, Bytes};
use serde_json::{Value, json};

use self::receive::{Content, receive};
use self::route::{Named, NoRoute, Route};
use crate::{
    Proxy, Upstream,
    answer::{Answer, failure, json_answer, opened, refusal},
    fault::Fault,
    proxy::{no_upstream, token},
};

pub(crate) async fn answer<B>(proxy: &std::sync::Arc<Proxy>, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (among, path) = proxy.reached(request.uri().path());
    let route = match Route::of(request.method(), path) {
        Ok(route) => route,
        Err(NoRoute::Method) => return refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
        Err(NoRoute::Path) => {
            let text = format!("{} {path}: not served by this proxy", request.method());
            return refusal(StatusCode::NOT_FOUND, &text);
        }
    };
    let path = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let (head, body) = request.into_parts();
    let content = match receive(&head.headers, body, proxy.settings.max_request_bytes).await {
        Ok(content) => content,
        Err(refused) => return refused,
    };
    if route == Route::OpenAi {
        return openai::answer(proxy, &among, &head.method, &path, &head.headers, content).await;
    }
    let asked = Asked { proxy, among: &among, fields: &head.headers };
    asked.routed(route, content).await.unwrap_or_else(|answer| answer)
}

struct Asked<'r> {
    proxy: &'r std::sync::Arc<Proxy>,
    /// The upstreams that the path may mean.
    among: &'r [usize],
    fields: &'r HeaderMap,
}

impl Asked<'_> {
    async fn routed(&self, route: Route, content: Content) -> Result<Answer, Answer> {
        Ok(match route {
            Route::Live => json_answer(&json!({ "live": true })),
            Route::Ready => self.ready().await?,
            Route::Server => self.server().await?,
            Route::Index => self.index(content).await?,
            Route::Load(model) => self.control(&model, "load", content).await?,
            Route::Unload(model) => self.control(&model, "unload", content).await?,
            Route::Model(model) => self.about(&model, Sealed::get("")).await?,
            Route::ModelReady(model) => self.about(&model, Sealed::get("/ready")).await?,
            Route::ModelConfig(model) => json_answer(&extensions::config_json(&self.metadata(&model).await?)),
            Route::Statistics(model) => {
                let model = model.as_ref().map(reference);
                let found =
                    extensions::statistics(self.proxy, self.among, model).await.map_err(|f| failure(&f))?;
                if found.is_empty()
                    && let Some(ModelRef { name: Some(name), .. }) = model
                {
                    return Err(refusal(StatusCode::NOT_FOUND, &extensions::unknown_model(name)));
                }
                let found: Vec<Value> = found.iter().map(extensions::Statistics::json).collect();
                json_answer(&json!({ "model_stats": found }))
            }
            Route::Trace => refusal(StatusCode::SERVICE_UNAVAILABLE, extensions::NO_TRACING),
            Route::Logging => refusal(StatusCode::SERVICE_UNAVAILABLE, extensions::NO_LOGGING),
            Route::SharedMemory(memory, region, what) => {
                extensions::shared_memory(memory, &region, what, &content)
            }
            Route::Infer(model) => self.infer(&model, content).await?,
            Route::Generate(model) => self.generate(&model, content).await?,
            Route::GenerateStream(model) => self.generate_stream(&model, content).await?,
            Route::OpenAi => refusal(StatusCode::NOT_FOUND, "not of this API"),
        })
    }

    fn upstream(&self, model: &str) -> Result<&Upstream, Answer> {
        self.proxy.upstream_for(self.among, model).ok_or_else(|| no_upstream(model))
    }

    /// Adds the token that the program sends, if it is to be sent on.
    fn sealed(&self, upstream: &Upstream, request: Sealed) -> Sealed {
        match token(upstream, self.fields) {
            Some(token) => request.field("authorization", token),
            None => request,
        }
    }

    /// Ready when every server is: verified, and it says so, sealed.
    async fn ready(&self) -> Result<Answer, Answer> {
        for upstream in self.proxy.among(self.among) {
            let request = self.sealed(upstream, Sealed::get("/v2/health/ready"));
            let answer = upstream.ask(request).await.map_err(|fault| failure(&fault))?;
            if answer.status() != 200 {
                return Err(opened(answer));
            }
        }
        Ok(json_answer(&json!({ "ready": true })))
    }

    /// What the first server says of itself, and what the proxy adds.
    async fn server(&self) -> Result<Answer, Answer> {
        let Some(first) = self.proxy.among(self.among).next() else {
            return Err(refusal(StatusCode::NOT_FOUND, "this proxy has no server here"));
        };
        let answer =
            first.ask(self.sealed(first, Sealed::get("/v2"))).await.map_err(|fault| failure(&fault))?;
        let Ok(mut metadata) = serde_json::from_slice::<Value>(answer.body()) else {
            return Err(opened(answer));
        };
        match metadata.get_mut("extensions").and_then(Value::as_array_mut) {
            Some(extensions) if answer.status() == 200 => {
                extensions.extend(extensions::ADDED.map(Value::from));
                Ok(json_answer(&metadata))
            }
            _ => Err(opened(answer)),
        }
    }

    /// The lists of all servers, each of the models that it is asked for.
    async fn index(&self, content: Content) -> Result<Answer, Answer> {
        let mut models = Vec::new();
        for upstream in self.proxy.among(self.among) {
            let request = Sealed::post("/v2/repository/index").body(content.json.clone());
            let answer =
                upstream.ask(self.sealed(upstream, request)).await.map_err(|fault| failure(&fault))?;
            let listed = serde_json::from_slice(answer.body()).ok().filter(|_| answer.status() == 200);
            let Some(Value::Array(listed)) = listed else { return Err(opened(answer)) };
            let ours = |model: &Value| {
                model.get("name").and_then(Value::as_str).is_some_and(|name| upstream.has(name))
            };
            models.extend(listed.into_iter().filter(ours));
        }
        Ok(json_answer(&Value::Array(models)))
    }

    async fn control(&self, model: &str, what: &str, content: Content) -> Result<Answer, Answer> {
        let upstream = self.upstream(model)?;
        let path = format!("/v2/repository/models/{}/{what}", encoded(model));
        let request = self.sealed(upstream, Sealed::post(path).body(content.json));
        let answer = upstream.ask(request).await.map_err(|fault| failure(&fault))?;
        // The claims change with the model: whoever calls next looks at them again.
        upstream.client.forget();
        Ok(opened(answer))
    }

    async fn about(&self, model: &Named, request: Sealed) -> Result<Answer, Answer> {
        let upstream = self.upstream(&model.name)?;
        let request = self.sealed(upstream, request).to_model(reference(model));
        Ok(opened(upstream.ask(request).await.map_err(|fault| failure(&fault))?))
    }

    async fn metadata(&self, model: &Named) -> Result<ModelMetadata, Answer> {
        let upstream = self.upstream(&model.name)?;
        let request = self.sealed(upstream, Sealed::get("")).to_model(reference(model));
        let answer = upstream.ask(request).await.map_err(|fault| failure(&fault))?;
        if answer.status() != 200 {
            return Err(opened(answer));
        }
        let unreadable = |err| failure(&Fault::proxy(format!("the model's metadata cannot be read: {err}")));
        serde_json::from_slice(answer.body()).map_err(unreadable)
    }

    /// Triton's generate extension, which the server has, too.
    async fn generate(&self, model: &Named, content: Content) -> Result<Answer, Answer> {
        let upstream = self.upstream(&model.name)?;
        let running = self.proxy.stats.begin(&upstream.counted(reference(model)));
        let request = self.sealed(upstream, Sealed::post("/generate")).body(content.json);
        let answer =
            upstream.ask(request.to_model(reference(model))).await.map_err(|fault| failure(&fault))?;
        if answer.status() == 200 {
            running.succeeded();
        }
        Ok(opened(answer))
    }

    async fn generate_stream(&self, model: &Named, content: Content) -> Result<Answer, Answer> {
        let upstream = self.upstream(&model.name)?;
        let place = self.proxy.place_for(self.among, &model.name).ok_or_else(|| no_upstream(&model.name))?;
        let running = self.proxy.stats.begin(&upstream.counted(reference(model)));
        let request = self.sealed(upstream, Sealed::post("/generate_stream")).body(content.json);
        let request = request.to_model(reference(model));
        let answer =
            streamed::streamed(std::sync::Arc::clone(self.proxy), place, request, Some(running)).await;
        Ok(answer.unwrap_or_else(|fault| failure(&fault)))
    }

    async fn infer(&self, model: &Named, content: Content) -> Result<Answer, Answer> {
        extensions::refuse_what_is_absent(&content.json)?;
        let upstream = self.upstream(&model.name)?;
        let running = self.proxy.stats.begin(&upstream.counted(reference(model)));
        let mut request = self.sealed(upstream, Sealed::post("/infer"));
        if let Some(media) = self.fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) {
            request = request.field("content-type", media);
        }
        request = match (content.tensors, content.length_said) {
            (Some(tensors), _) => request.tensor_body(content.json, tensors),
            (None, Some(length)) => request.field(receive::HEADER_LENGTH, length).body(content.json),
            (None, None) => request.body(content.json),
        };
        let answer =
            upstream.ask(request.to_model(reference(model))).await.map_err(|fault| failure(&fault))?;
        if answer.status() == 200 {
            running.succeeded();
        }
        Ok(opened(answer))
    }
}

fn reference(model: &Named) -> ModelRef<'_> {
    ModelRef { name: Some(&model.name), version: model.version.as_deref() }
}

/// One segment of a path (RFC 3986).
pub(crate) fn encoded(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}
