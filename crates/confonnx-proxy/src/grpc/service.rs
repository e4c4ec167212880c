//! The calls, each of which does the same as its path over HTTP.

use confonnx_client::Request as Sealed;
use serde_json::Value;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    calls::{Service, read, reference},
    convert,
    inference::{
        CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
        CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest,
        CudaSharedMemoryUnregisterResponse, InferStatistics, LogSettingsRequest, LogSettingsResponse,
        ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
        ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatistics,
        ModelStatisticsRequest, ModelStatisticsResponse, RepositoryIndexRequest, RepositoryIndexResponse,
        RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
        RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
        ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse, StatisticDuration,
        SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse,
        SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
        SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse, TraceSettingRequest,
        TraceSettingResponse, grpc_inference_service_server::GrpcInferenceService,
        repository_index_response::ModelIndex,
    },
    refused, stream,
};
use crate::rest::extensions;

type Result<T> = std::result::Result<Response<T>, Status>;

#[async_trait]
impl GrpcInferenceService for Service {
    type ModelStreamInferStream = stream::Answers;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, request: Request<ServerReadyRequest>) -> Result<ServerReadyResponse> {
        let among = self.among();
        for upstream in self.0.among(&among) {
            self.ask(upstream, request.metadata(), Sealed::get("/v2/health/ready")).await?;
        }
        Ok(Response::new(ServerReadyResponse { ready: true }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.get_ref();
        let asked = Sealed::get("/ready").to_model(reference(name, version));
        let ready = self.ask(self.upstream(name)?, request.metadata(), asked).await;
        match ready {
            // The model is not ready, as Triton says of any model that is not. That no server can be reached is an
            // error all the same.
            Err(status) if status.metadata().contains_key(crate::answer::FAULT) => Err(status),
            ready => Ok(Response::new(ModelReadyResponse { ready: ready.is_ok() })),
        }
    }

    async fn server_metadata(
        &self,
        request: Request<ServerMetadataRequest>,
    ) -> Result<ServerMetadataResponse> {
        let among = self.among();
        let first =
            self.0.among(&among).next().ok_or_else(|| Status::not_found("this proxy has no server here"))?;
        let found: Value = read(&self.ask(first, request.metadata(), Sealed::get("/v2")).await?)?;
        let text = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let known = found.get("extensions").and_then(Value::as_array).into_iter().flatten();
        let known = known.filter_map(Value::as_str).chain(extensions::ADDED).map(Into::into);
        let (name, version) = (text("name"), text("version"));
        Ok(Response::new(ServerMetadataResponse { name, version, extensions: known.collect() }))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Result<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.get_ref();
        let found = self.model(request.metadata(), name, version).await?;
        Ok(Response::new(ModelMetadataResponse {
            inputs: found.inputs.iter().map(convert::described).collect(),
            outputs: found.outputs.iter().map(convert::described).collect(),
            name: found.name,
            versions: found.versions,
            platform: found.platform,
        }))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Result<ModelConfigResponse> {
        let ModelConfigRequest { name, version } = request.get_ref();
        let found = self.model(request.metadata(), name, version).await?;
        Ok(Response::new(ModelConfigResponse { config: Some(convert::config(&found)) }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<ModelInferResponse> {
        let (metadata, _, request) = request.into_parts();
        Ok(Response::new(self.infer(&metadata, request).await?))
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Self::ModelStreamInferStream> {
        let (metadata, _, requests) = request.into_parts();
        Ok(Response::new(stream::answers(self, metadata, requests)))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<ModelStatisticsResponse> {
        let ModelStatisticsRequest { name, version } = request.get_ref();
        let model = (!name.is_empty()).then(|| reference(name, version));
        let found = extensions::statistics(&self.0, &self.among(), model).await;
        let found = found.map_err(|fault| refused::fault(&fault))?;
        if found.is_empty() && model.is_some() {
            return Err(Status::not_found(extensions::unknown_model(name)));
        }
        let duration = |(count, ns): (u64, u64)| Some(StatisticDuration { count, ns });
        let numbers = |found: extensions::Statistics| ModelStatistics {
            name: found.model.0,
            version: found.model.1,
            last_inference: found.last_ms,
            inference_count: found.success.0,
            execution_count: found.success.0,
            inference_stats: Some(InferStatistics {
                success: duration(found.success),
                fail: duration(found.fail),
                // The queue's numbers are those over HTTP: `Statistics` says why.
                queue: duration((found.success.0, 0)),
                compute_input: duration((found.success.0, 0)),
                compute_infer: duration(found.success),
                compute_output: duration((found.success.0, 0)),
                cache_hit: duration((0, 0)),
                cache_miss: duration((0, 0)),
            }),
            ..ModelStatistics::default()
        };
        let model_stats = found.into_iter().map(numbers).collect();
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<RepositoryIndexResponse> {
        let body = serde_json::json!({ "ready": request.get_ref().ready }).to_string();
        let (among, mut models) = (self.among(), Vec::new());
        for upstream in self.0.among(&among) {
            let asked = Sealed::post("/v2/repository/index").body(body.clone());
            let listed: Vec<Value> = read(&self.ask(upstream, request.metadata(), asked).await?)?;
            for model in listed {
                let text =
                    |name: &str| model.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
                let name = text("name");
                if upstream.has(&name) {
                    let (version, state, reason) = (text("version"), text("state"), text("reason"));
                    models.push(ModelIndex { name, version, state, reason });
                }
            }
        }
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<RepositoryModelLoadResponse> {
        let RepositoryModelLoadRequest { model_name, parameters, .. } = request.get_ref();
        // The server says that it takes none: their names are enough for that.
        let given: Vec<_> = parameters.keys().map(|name| (name.clone(), Value::Bool(true))).collect();
        let body = serde_json::json!({ "parameters": Value::Object(given.into_iter().collect()) });
        self.control(request.metadata(), model_name, "load", &body).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<RepositoryModelUnloadResponse> {
        let model = &request.get_ref().model_name;
        self.control(request.metadata(), model, "unload", &Value::Object(serde_json::Map::new())).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Result<SystemSharedMemoryStatusResponse> {
        no_region(&request.get_ref().name)?;
        Ok(Response::new(SystemSharedMemoryStatusResponse::default()))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Result<SystemSharedMemoryRegisterResponse> {
        Err(refused::invalid(extensions::no_system_memory(&request.get_ref().key)))
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Result<SystemSharedMemoryUnregisterResponse> {
        Ok(Response::new(SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<CudaSharedMemoryStatusRequest>,
    ) -> Result<CudaSharedMemoryStatusResponse> {
        no_region(&request.get_ref().name)?;
        Ok(Response::new(CudaSharedMemoryStatusResponse::default()))
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Result<CudaSharedMemoryRegisterResponse> {
        Err(refused::invalid(extensions::no_cuda(&request.get_ref().name)))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Result<CudaSharedMemoryUnregisterResponse> {
        Ok(Response::new(CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(&self, _: Request<TraceSettingRequest>) -> Result<TraceSettingResponse> {
        Err(Status::unavailable(extensions::NO_TRACING))
    }

    async fn log_settings(&self, _: Request<LogSettingsRequest>) -> Result<LogSettingsResponse> {
        Err(Status::unavailable(extensions::NO_LOGGING))
    }
}

/// There is no memory to share with a TEE.
fn no_region(name: &str) -> std::result::Result<(), Status> {
    if name.is_empty() { Ok(()) } else { Err(Status::not_found(extensions::no_region(name))) }
}
