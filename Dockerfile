# docker build -t classifier . && docker run -p 8000:8000 -v ./runs/NAME:/ckpt:ro classifier
FROM python:3.12-slim
WORKDIR /app
# The address of PyTorch's wheels for CPUs, as its installation page gives it, makes the image small:
# docker build --build-arg TORCH_INDEX=URL ...
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir torch torchvision ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY hydra_plugins hydra_plugins
RUN pip install --no-cache-dir ".[serve,heif]"
COPY examples examples
RUN useradd --uid 10001 --no-create-home server
USER 10001
ENV CKPT=/ckpt
EXPOSE 8000
CMD ["uvicorn", "examples.serve:app", "--host", "0.0.0.0", "--port", "8000"]
