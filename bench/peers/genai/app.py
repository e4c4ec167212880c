"""onnxruntime-genai behind FastAPI, streaming, as its users write it: a generator for each request, in the threads of the framework.

    BENCH_GENAI=FOLDER python -m uvicorn app:app --port 8080     # FOLDER has model.onnx and genai_config.json
"""

import json
import os

from answer import Answers
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

answers = Answers(os.environ["BENCH_GENAI"])
app = FastAPI()


class Asked(BaseModel):
    tokens: list[int]
    max_tokens: int


@app.get("/health")
def health() -> dict[str, bool]:
    return {"ready": True}


@app.post("/generate")
def generate(asked: Asked) -> StreamingResponse:
    found = answers.to(asked.tokens, asked.max_tokens)
    events = (f"data: {json.dumps({'token': token, 'text': text})}\n\n" for token, text in found)
    return StreamingResponse(events, media_type="text/event-stream")
