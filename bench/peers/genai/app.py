"""onnxruntime-genai behind FastAPI, streaming, as its users write it: a generator for each request, in the threads of the framework.

    BENCH_GENAI=FOLDER python -m uvicorn app:app --port 8080     # FOLDER has model.onnx and genai_config.json
"""

import json
import os

import onnxruntime_genai
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

model = onnxruntime_genai.Model(os.environ["BENCH_GENAI"])
tokenizer = onnxruntime_genai.Tokenizer(model) if os.path.exists(f"{os.environ['BENCH_GENAI']}/tokenizer.json") else None
app = FastAPI()


class Asked(BaseModel):
    tokens: list[int]
    max_tokens: int


@app.get("/health")
def health() -> dict[str, bool]:
    return {"ready": True}


@app.post("/generate")
def generate(asked: Asked) -> StreamingResponse:
    def events():
        params = onnxruntime_genai.GeneratorParams(model)
        params.set_search_options(do_sample=False, max_length=len(asked.tokens) + asked.max_tokens, min_length=len(asked.tokens) + asked.max_tokens)
        generator = onnxruntime_genai.Generator(model, params)
        generator.append_tokens(asked.tokens)
        text = tokenizer.create_stream() if tokenizer else None
        for _ in range(asked.max_tokens):
            if generator.is_done():
                break
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            yield f"data: {json.dumps({'token': token, 'text': text.decode(token) if text else ''})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
