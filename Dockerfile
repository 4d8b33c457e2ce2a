FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements.lock ./
RUN python -m venv /opt/ringfence \
 && /opt/ringfence/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml ./
COPY allocation allocation
COPY service service
RUN /opt/ringfence/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/ringfence ringfence
COPY --from=build /opt/ringfence /opt/ringfence
ENV PATH=/opt/ringfence/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RINGFENCE_HOST=0.0.0.0 \
    RINGFENCE_DATA_DIR=/var/lib/ringfence/data
USER ringfence
WORKDIR /var/lib/ringfence
EXPOSE 8080
# Name RINGFENCE_REDIS_URL and RINGFENCE_DATABASE_URL; what is not named is started inside.
CMD ["ringfence", "up"]
