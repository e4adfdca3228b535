"""A trained network behind HTTP. Needs the extra `serve`.

    CKPT=runs/NAME uvicorn examples.serve:app --port 8000
    curl -F file=@photo.jpg localhost:8000/predict

Answers {"class": ..., "probabilities": {...}}; 413 for files above 20 MB, 422 for what is no image.
"""

import os
from typing import Any

from fastapi import FastAPI, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse

import src
from src.errors import UserError

MAX_BYTES = 20_000_000
app = FastAPI()
net = src.load(os.environ["CKPT"])


@app.middleware("http")
async def refuse_large_requests(request: Request, call_next: Any) -> Any:
    """Refuse before the body is read; only a request that says its length is read."""
    length = request.headers.get("content-length", "")
    if request.method == "POST" and (not length.isdigit() or int(length) > MAX_BYTES):
        return JSONResponse({"detail": f"Send at most {MAX_BYTES} bytes."}, status_code=413)
    return await call_next(request)


@app.get("/health")
def health() -> dict[str, list[str]]:
    return {"classes": net.classes}


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, Any]:  # not async: it runs in a thread
    try:
        (row,) = net.predict(file.file).tolist()
    except UserError as error:
        raise HTTPException(422, str(error.problem)) from None
    probabilities = dict(zip(net.classes, row, strict=True))
    return {
        "class": max(probabilities, key=probabilities.__getitem__),
        "probabilities": probabilities,
    }
