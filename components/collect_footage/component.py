"""Kubeflow's face of collect-footage."""

from kfp import dsl
from kfp.dsl import Dataset, Output


@dsl.component(base_image="hypercut", install_kfp_package=False)
def collect_footage(footage: str, store: str, manifest: Output[Dataset]) -> str:
    """Find footage and write its manifest; returns the manifest's hash, which decides what is cached."""
    from pathlib import Path

    from components.collect_footage.step import CollectConfig, collect_footage
    from components.shared_store import group, publish_manifest, running

    with running("collect-footage", store, manifest.uri) as run:
        found = collect_footage(group(CollectConfig, footage), Path(manifest.path), 0, run.work)
        digest = publish_manifest(Path(manifest.path), run.store)
        run.remember(manifest=digest)
        manifest.metadata.update(sha256=digest, revision=found.revision, sources=len(found.sources))
    return digest
