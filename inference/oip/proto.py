"""The messages of `inference.GRPCInferenceService`, built from a table: field names in the order of their numbers.

A pool of their own keeps them apart from a client library in the same process that brings the same names.
Source: github.com/kserve/open-inference-protocol, open_inference_grpc.proto, and Triton's grpc_service.proto for the repository.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE: Final = "inference.GRPCInferenceService"
PACKAGE: Final = "inference"

_PARAMETERS: Final = "parameters: map InferParameter"

MESSAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("live: bool",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("ready: bool",),
    "ModelReadyRequest": ("name: string", "version: string"),
    "ModelReadyResponse": ("ready: bool",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("name: string", "version: string", "extensions: repeated string"),
    "ModelMetadataRequest": ("name: string", "version: string"),
    "TensorMetadata": ("name: string", "datatype: string", "shape: repeated int64"),
    "ModelMetadataResponse": (
        "name: string",
        "versions: repeated string",
        "platform: string",
        "inputs: repeated TensorMetadata",
        "outputs: repeated TensorMetadata",
    ),
    "InferParameter": (
        "bool_param: one bool",
        "int64_param: one int64",
        "string_param: one string",
        "double_param: one double",
        "uint64_param: one uint64",
    ),
    "InferTensorContents": (
        "bool_contents: repeated bool",
        "int_contents: repeated int32",
        "int64_contents: repeated int64",
        "uint_contents: repeated uint32",
        "uint64_contents: repeated uint64",
        "fp32_contents: repeated float",
        "fp64_contents: repeated double",
        "bytes_contents: repeated bytes",
    ),
    "InferInputTensor": (
        "name: string",
        "datatype: string",
        "shape: repeated int64",
        _PARAMETERS,
        "contents: InferTensorContents",
    ),
    "InferRequestedOutputTensor": ("name: string", _PARAMETERS),
    "ModelInferRequest": (
        "model_name: string",
        "model_version: string",
        "id: string",
        _PARAMETERS,
        "inputs: repeated InferInputTensor",
        "outputs: repeated InferRequestedOutputTensor",
        "raw_input_contents: repeated bytes",
    ),
    "InferOutputTensor": (
        "name: string",
        "datatype: string",
        "shape: repeated int64",
        _PARAMETERS,
        "contents: InferTensorContents",
    ),
    "ModelInferResponse": (
        "model_name: string",
        "model_version: string",
        "id: string",
        _PARAMETERS,
        "outputs: repeated InferOutputTensor",
        "raw_output_contents: repeated bytes",
    ),
    "RepositoryIndexRequest": ("repository_name: string", "ready: bool"),
    "ModelIndex": ("name: string", "version: string", "state: string", "reason: string"),
    "RepositoryIndexResponse": ("models: repeated ModelIndex",),
    "ModelRepositoryParameter": (
        "bool_param: one bool",
        "int64_param: one int64",
        "string_param: one string",
        "bytes_param: one bytes",
    ),
    "RepositoryModelLoadRequest": (
        "repository_name: string",
        "model_name: string",
        "parameters: map ModelRepositoryParameter",
    ),
    "RepositoryModelLoadResponse": (),
    "RepositoryModelUnloadRequest": (
        "repository_name: string",
        "model_name: string",
        "parameters: map ModelRepositoryParameter",
    ),
    "RepositoryModelUnloadResponse": (),
}

METHODS: Final = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
)

_SCALARS: Final = {
    name: getattr(FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("bool", "string", "bytes", "int32", "int64", "uint32", "uint64", "float", "double")
}


class Messages(NamedTuple):
    """Message classes by name."""

    classes: Mapping[str, Any]

    def __call__(self, name: str, /, **fields: Any) -> Any:
        return self.classes[name](**fields)


def messages() -> Messages:
    pool = DescriptorPool()
    file = FileDescriptorProto(name="open_inference.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        _describe(file.message_type.add(name=name), name, fields)
    pool.Add(file)
    return Messages({name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES})


def _describe(message: DescriptorProto, name: str, fields: tuple[str, ...]) -> None:
    if any(" one " in field for field in fields):
        message.oneof_decl.add(name="parameter_choice")
    for number, field in enumerate(fields, 1):
        label, _, words = field.partition(": ")
        rule, _, kind = words.rpartition(" ")
        made = message.field.add(name=label, number=number)
        made.label = made.LABEL_REPEATED if rule in {"repeated", "map"} else made.LABEL_OPTIONAL
        if rule == "one":
            made.oneof_index = 0
        if rule == "map":
            entry = message.nested_type.add(name="ParametersEntry")
            entry.options.map_entry = True
            _typed(entry.field.add(name="key", number=1, label=made.LABEL_OPTIONAL), "string")
            _typed(entry.field.add(name="value", number=2, label=made.LABEL_OPTIONAL), kind)
            kind = f"{name}.ParametersEntry"
        _typed(made, kind)


def _typed(field: FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
        return
    field.type = field.TYPE_MESSAGE
    field.type_name = f".{PACKAGE}.{kind}"
