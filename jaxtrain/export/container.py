"""Files by which an export is served in a container: a Dockerfile, and an example for Kubernetes with its probes."""

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

DOCKERFILE = "Dockerfile"
KUBERNETES = "kubernetes.yaml"

_DOCKERFILE = """\
# Serves this export. It takes jaxtrain from a wheel in the folder wheels/ beside this file:
#   pip wheel --no-deps --wheel-dir wheels FOLDER-OF-JAXTRAIN
#   docker build -t {name} .
#   docker run --rm -p 127.0.0.1:8000:8000 {name}
# Then open http://127.0.0.1:8000/
FROM python:{python}-slim
COPY wheels/ /wheels/
# The release of JAX that the export was checked with.
RUN pip install --no-cache-dir "$(echo /wheels/jaxtrain-*.whl)[serve]" jax=={jax} && useradd --create-home model
{copies}
USER model
EXPOSE 8000
# A list starts no shell, so that SIGTERM reaches the server, which then answers what it has taken and ends.
CMD ["python", "-m", "jaxtrain.main", "serve", "--export=/model", "--host=0.0.0.0", "--port=8000"]
"""

_KUBERNETES = """\
# An example: replicas of the server of this export, and one address for them. Change image, replicas and resources.
# kubectl apply -f kubernetes.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: 2
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
      annotations: {{prometheus.io/scrape: "true", prometheus.io/port: "8000", prometheus.io/path: /metrics}}
    spec:
      # Longer than the wait below and the deadline of a request, 30 seconds, together.
      terminationGracePeriodSeconds: 60
      containers:
        - name: server
          image: {name}
          ports: [{{name: http, containerPort: 8000}}]
          # Requests come once the programs are compiled and checked, and no more once the server is ending.
          readinessProbe:
            httpGet: {{path: /v2/health/ready, port: http}}
            periodSeconds: 2
          livenessProbe:
            httpGet: {{path: /v2/health/live, port: http}}
            periodSeconds: 10
            timeoutSeconds: 5
          # Time for the network to learn that this replica is ending, before it refuses requests.
          lifecycle: {{preStop: {{exec: {{command: [sleep, "5"]}}}}}}
          resources:
            requests: {{cpu: "1", memory: 1Gi}}
            limits: {{memory: 2Gi}}
          securityContext: {{allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 1000}}
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"""


def dockerfile(description: Mapping[str, Any], files: Iterable[str]) -> str:
    """Returns the Dockerfile of an export with this description, which copies the `files` of its folder."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    jax = description["versions"]["jax"]
    return _DOCKERFILE.format(name=_name_of(description), python=python, jax=jax, copies=_copies(files))


def _copies(files: Iterable[str]) -> str:
    """Returns the instructions that copy files into the image, each folder by one of its own."""
    folders: dict[str, list[str]] = {}
    for name in files:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    return "\n".join(f"COPY {' '.join(names)} /model/{folder and folder + '/'}" for folder, names in folders.items())


def kubernetes(description: Mapping[str, Any]) -> str:
    """Returns the example for Kubernetes of an export with this description."""
    return _KUBERNETES.format(name=_name_of(description))


LONGEST_NAME = 50
"""Characters of a name; Kubernetes takes 63, and appends some."""


def _name_of(description: Mapping[str, Any]) -> str:
    """Returns the model's name as images and objects of Kubernetes may be named: small letters, digits and hyphens."""
    name = re.sub("[^a-z0-9]+", "-", f"{description['model']}".lower()).strip("-")
    return f"model-{name}"[:LONGEST_NAME].rstrip("-")
