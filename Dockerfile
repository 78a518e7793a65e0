# A server for one exported file, on a CPU, without torch:
#   docker build -t regraft-serve .
#   docker run --rm -p 8000:8000 -e REGRAFT_TOKEN=... -v "$PWD/photos.onnx:/model.onnx:ro" regraft-serve
FROM python:3.12-slim AS build
COPY pyproject.toml README.md LICENSE /source/
COPY docker/requirements.txt /source/docker/
COPY src /source/src
RUN pip install --no-cache-dir --prefix=/installed -r /source/docker/requirements.txt \
 && pip install --no-cache-dir --prefix=/installed --no-deps /source

FROM python:3.12-slim
COPY --from=build /installed /usr/local
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin regraft
USER 10001
ENV PYTHONUNBUFFERED=1 REGRAFT_CACHE=/tmp/regraft
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["regraft", "serve", "/model.onnx", "--host", "0.0.0.0"]
