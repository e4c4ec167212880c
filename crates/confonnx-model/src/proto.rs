//! The parts of ONNX's protobuf schema that we read (`onnx.proto`, IR version 13). Fields that are not declared, weights
//! above all, are skipped by the decoder. Its recursion limit of 100 bounds nested subgraphs.

use std::collections::BTreeSet;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    #[prost(string, tag = "3")]
    pub(crate) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata_props: Vec<StringStringEntryProto>,
    #[prost(message, repeated, tag = "20")]
    training_info: Vec<TrainingInfoProto>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<FunctionProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<StoredTensor>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor_type: Option<TensorTypeProto>,
    /// Of a sequence: the type of its elements.
    #[prost(message, optional, boxed, tag = "4")]
    pub(crate) sequence_type: Option<Box<SequenceTypeProto>>,
    #[prost(message, optional, tag = "5")]
    pub(crate) map_type: Option<MapTypeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SequenceTypeProto {
    #[prost(message, optional, boxed, tag = "1")]
    pub(crate) elem_type: Option<Box<TypeProto>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MapTypeProto {
    #[prost(int32, tag = "1")]
    pub(crate) key_type: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DimensionProto {
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub(crate) value: Option<DimensionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum DimensionValue {
    #[prost(int64, tag = "1")]
    Value(i64),
    #[prost(string, tag = "2")]
    Param(String),
}

/// A `TensorProto` of a model, without its values.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StoredTensor {
    #[prost(int64, repeated, tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringStringEntryProto>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SparseTensorProto {
    #[prost(message, optional, tag = "1")]
    values: Option<StoredTensor>,
    #[prost(message, optional, tag = "2")]
    indices: Option<StoredTensor>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int64, tag = "3")]
    pub(crate) i: i64,
    #[prost(int64, repeated, tag = "8")]
    pub(crate) ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(crate) strings: Vec<Vec<u8>>,
    #[prost(message, optional, boxed, tag = "5")]
    t: Option<Box<StoredTensor>>,
    #[prost(message, optional, boxed, tag = "6")]
    g: Option<Box<GraphProto>>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<StoredTensor>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<GraphProto>,
    #[prost(message, optional, boxed, tag = "22")]
    sparse_tensor: Option<Box<SparseTensorProto>>,
    #[prost(message, repeated, tag = "23")]
    sparse_tensors: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FunctionProto {
    #[prost(message, repeated, tag = "7")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "11")]
    attribute_proto: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TrainingInfoProto {
    #[prost(message, optional, tag = "1")]
    initialization: Option<GraphProto>,
    #[prost(message, optional, tag = "2")]
    algorithm: Option<GraphProto>,
}

impl ModelProto {
    /// Every file that any tensor of the model names, wherever it sits: one missed would be weights that no hash covers.
    pub(crate) fn external_data(&self) -> BTreeSet<String> {
        self.walk().locations
    }

    /// Every operator of the model, wherever it sits: `Conv`, `com.microsoft:Gelu`.
    pub(crate) fn operators(&self) -> BTreeSet<String> {
        self.walk().operators
    }

    fn walk(&self) -> Found {
        let mut locations = Found::default();
        self.graph.iter().for_each(|graph| locations.graph(graph));
        for training in &self.training_info {
            training
                .initialization
                .iter()
                .chain(&training.algorithm)
                .for_each(|graph| locations.graph(graph));
        }
        for function in &self.functions {
            locations.nodes(&function.node);
            locations.attributes(&function.attribute_proto);
        }
        locations
    }
}

impl NodeProto {
    /// `Conv`, `com.microsoft:Gelu`
    fn operator(&self) -> String {
        match self.domain.as_str() {
            "" | "ai.onnx" => self.op_type.clone(),
            domain => format!("{domain}:{}", self.op_type),
        }
    }

    pub(crate) fn is(&self, domain: &str, op_type: &str) -> bool {
        self.domain == domain && self.op_type == op_type
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name == name)
    }
}

impl GraphProto {
    /// Names of initializers, which older models list among their inputs too.
    pub(crate) fn initializer_names(&self) -> BTreeSet<&str> {
        let sparse = self.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
        self.initializer.iter().chain(sparse).map(|tensor| tensor.name.as_str()).collect()
    }
}

#[derive(Default)]
struct Found {
    locations: BTreeSet<String>,
    operators: BTreeSet<String>,
}

impl Found {
    // As deep as the decoder went, so at most its recursion limit.
    fn graph(&mut self, graph: &GraphProto) {
        graph.initializer.iter().for_each(|tensor| self.tensor(tensor));
        graph.sparse_initializer.iter().for_each(|sparse| self.sparse(sparse));
        self.nodes(&graph.node);
    }

    fn nodes(&mut self, nodes: &[NodeProto]) {
        self.operators.extend(nodes.iter().map(NodeProto::operator));
        self.attributes(nodes.iter().flat_map(|node| &node.attribute));
    }

    fn attributes<'a>(&mut self, attributes: impl IntoIterator<Item = &'a AttributeProto>) {
        for attribute in attributes {
            attribute
                .t
                .as_deref()
                .into_iter()
                .chain(&attribute.tensors)
                .for_each(|tensor| self.tensor(tensor));
            attribute.g.as_deref().into_iter().chain(&attribute.graphs).for_each(|graph| self.graph(graph));
            let sparse = attribute.sparse_tensor.as_deref().into_iter().chain(&attribute.sparse_tensors);
            sparse.for_each(|sparse| self.sparse(sparse));
        }
    }

    fn sparse(&mut self, sparse: &SparseTensorProto) {
        sparse.values.iter().chain(&sparse.indices).for_each(|tensor| self.tensor(tensor));
    }

    /// Entries count even where `data_location` is not external: engines differ in which of the two they ask.
    fn tensor(&mut self, tensor: &StoredTensor) {
        let mut locations = tensor.external_data.iter().filter(|entry| entry.key == "location").peekable();
        if locations.peek().is_none() && tensor.data_location == EXTERNAL {
            // Refused later, as every unusable location is.
            self.locations.insert(String::new());
        }
        self.locations.extend(locations.map(|entry| entry.value.clone()));
    }
}

pub(crate) const EXTERNAL: i32 = 1;
