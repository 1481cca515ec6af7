# fcnconv with its default model, ready to run without a network:
#
#     docker build -t fcnconv .
#     docker run --rm -i fcnconv classify - < photo.jpg
#     docker run --rm -v "$PWD:/data" fcnconv heatmap photo.jpg -o map.png
#
# --build-arg EXTRAS=geo,tiff,slides adds optional extras.
FROM python:3.12-slim

ARG EXTRAS=""
# The CPU build of torch is a fifth of the size of the default one. Set TORCH_INDEX="" for the default.
ARG TORCH_INDEX="https://download.pytorch.org/whl/cpu"

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 XDG_CACHE_HOME=/var/cache/fcnconv

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY fcnconv fcnconv
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} ".${EXTRAS:+[$EXTRAS]}"

# The plan is made once, here. Every user of the container may read it, and add plans of other models.
RUN fcnconv prepare && chmod -R a+rwX /var/cache/fcnconv

# No image needs more rights than those of an ordinary user.
RUN useradd --create-home fcnconv
USER fcnconv
WORKDIR /data
ENTRYPOINT ["fcnconv"]
CMD ["--help"]
