# CUDA: docker build -f docker/cuda.Dockerfile -t mgre-cuda . && docker run --rm --gpus all --shm-size 8g mgre-cuda
FROM python:3.12-slim-bookworm
WORKDIR /mgre
# Torch's wheel brings CUDA's libraries; the host needs the driver and NVIDIA's container toolkit.
RUN pip install --no-cache-dir torch==2.14.1 torchvision==0.29.1
COPY setup.py pyproject.toml README.md LICENSE ./
COPY projects projects
COPY configs configs
# --no-deps: fastreid pins torch 1.13.1, which has no build for this Python. faiss without CUDA is enough: neighbours
# are searched by torch on the GPU.
RUN pip install --no-cache-dir '.[cpu,pose-gpu]' \
    && pip install --no-cache-dir --no-deps fastreid==1.4.0 'rtmlib>=0.0.16' \
    && useradd --create-home mgre
USER mgre
WORKDIR /home/mgre
ENTRYPOINT ["mgre"]
CMD ["quickstart"]
