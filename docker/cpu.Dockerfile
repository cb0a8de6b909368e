# CPU: docker build -f docker/cpu.Dockerfile -t mgre . && docker run --rm mgre
FROM python:3.12-slim-bookworm
WORKDIR /mgre
# Torch comes first and may come from an index of its own: its builds without CUDA make an image some gigabytes smaller,
# docker build --build-arg TORCH_INDEX=... with the address that pytorch.org names for "CPU".
ARG TORCH_INDEX
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.14.1 torchvision==0.29.1
COPY setup.py pyproject.toml README.md LICENSE ./
COPY projects projects
COPY configs configs
# --no-deps: fastreid pins torch 1.13.1, which has no build for this Python.
RUN pip install --no-cache-dir '.[cpu,pose]' \
    && pip install --no-cache-dir --no-deps fastreid==1.4.0 'rtmlib>=0.0.16' \
    && useradd --create-home mgre
USER mgre
WORKDIR /home/mgre
ENTRYPOINT ["mgre"]
CMD ["quickstart"]
