# The command with the CPU build of torch: `make docker`, then
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/pictures" sr-upscale photo.jpg -o out.png
FROM python:3.11-slim AS build
RUN pip install --no-cache-dir "uv>=0.9"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY sr_upscale sr_upscale
COPY weights weights
RUN uv venv --python /usr/local/bin/python3 /opt/sr-upscale \
    && uv pip install --no-cache --python /opt/sr-upscale/bin/python --torch-backend cpu .

FROM python:3.11-slim
COPY --from=build /opt/sr-upscale /opt/sr-upscale
RUN useradd --create-home sr-upscale && install --directory --owner sr-upscale /pictures
USER sr-upscale
# --user may name somebody who has no home
ENV SR_UPSCALE_CACHE=/tmp/sr-upscale
WORKDIR /pictures
ENTRYPOINT ["/opt/sr-upscale/bin/sr-upscale"]
CMD ["--help"]
