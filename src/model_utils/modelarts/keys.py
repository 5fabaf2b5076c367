# SPDX-License-Identifier: Apache-2.0
"""The keys of a run on ModelArts: what is fetched before it, and where its outputs go."""

from pydantic import model_validator

from ..keys import Keys, key

URLS = ("data_url", "multi_data_url", "ckpt_url", "pretrained_url", "train_url", "result_url")


class CloudKeys(Keys):
    """ModelArts: transfers between the bucket and this server; the config of a run keeps the defaults."""

    enable_modelarts: bool = key(
        False, "fetch data before the run and upload its outputs after it, by the package moxing"
    )
    data_url: str = key("", "folder or file in the bucket that is copied to data_path", unit="obs://")
    multi_data_url: str = key(
        "",
        'several data sets, in place of data_url: [{"dataset_url": "obs://...", "dataset_name": "NAME"}, '
        "...]; each is copied to data_path/NAME, and the run reads the first",
        unit="JSON",
    )
    modelarts_dataset_unzip_name: str = key(
        "", "NAME: NAME.zip among the data is unpacked to the folder NAME, and the run reads that folder"
    )
    ckpt_url: str = key(
        "",
        "in the bucket: what is copied to checkpoint_path, or to the folder of train.py --resume",
        unit="obs://",
    )
    pretrained_url: str = key(
        "", "file or folder in the bucket that is copied to pretrained_path", unit="obs://"
    )
    train_url: str = key("", "folder in the bucket for output_path, also when the run fails", unit="obs://")
    result_url: str = key(
        "",
        "folder in the bucket for output_path without its checkpoints, also when the run fails",
        unit="obs://",
    )
    transfer_timeout: float = key(
        7200.0,
        "longest time of one transfer, and of waiting for another process that makes it",
        unit="seconds",
        gt=0,
    )
    transfer_attempts: int = key(
        3, "how often a transfer is tried before the run fails", unit="attempts", ge=1
    )

    @model_validator(mode="after")
    def _fit_the_cloud(self) -> "CloudKeys":
        if not self.enable_modelarts:
            for name in (*URLS, "modelarts_dataset_unzip_name"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name}: {getattr(self, name)!r} given, allowed: only with enable_modelarts true"
                    )
        if self.data_url and self.multi_data_url:
            raise ValueError(
                f"multi_data_url: {self.multi_data_url!r} given, allowed: without data_url, not both"
            )
        name = self.modelarts_dataset_unzip_name
        if name and not (self.data_url or self.multi_data_url):
            raise ValueError(
                f"modelarts_dataset_unzip_name: {name!r} given, allowed: with data_url or multi_data_url"
            )
        if "/" in name or name in (".", ".."):
            raise ValueError(
                f"modelarts_dataset_unzip_name: {name!r} given, allowed: a plain name, without a folder"
            )
        return self
