//! Messages of `google.bigtable.v2` with the fields that are newer than the crate that they come from (numbers as published).

use model::Bytes;

use crate::data;

/// `RowFilter`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RowFilter {
    /// Which one; passes all without it.
    #[prost(oneof = "Filter", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20")]
    pub filter: Option<Filter>,
}

/// The kinds of filters.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(missing_docs, reason = "named as published")]
pub enum Filter {
    #[prost(message, tag = "1")]
    Chain(Filters),
    #[prost(message, tag = "2")]
    Interleave(Filters),
    #[prost(message, tag = "3")]
    Condition(Box<Condition>),
    #[prost(bytes = "bytes", tag = "4")]
    RowKeyRegexFilter(Bytes),
    #[prost(string, tag = "5")]
    FamilyNameRegexFilter(String),
    #[prost(bytes = "bytes", tag = "6")]
    ColumnQualifierRegexFilter(Bytes),
    #[prost(message, tag = "7")]
    ColumnRangeFilter(data::ColumnRange),
    #[prost(message, tag = "8")]
    TimestampRangeFilter(data::TimestampRange),
    #[prost(bytes = "bytes", tag = "9")]
    ValueRegexFilter(Bytes),
    #[prost(int32, tag = "10")]
    CellsPerRowOffsetFilter(i32),
    #[prost(int32, tag = "11")]
    CellsPerRowLimitFilter(i32),
    #[prost(int32, tag = "12")]
    CellsPerColumnLimitFilter(i32),
    #[prost(bool, tag = "13")]
    StripValueTransformer(bool),
    #[prost(double, tag = "14")]
    RowSampleFilter(f64),
    #[prost(message, tag = "15")]
    ValueRangeFilter(data::ValueRange),
    #[prost(bool, tag = "16")]
    Sink(bool),
    #[prost(bool, tag = "17")]
    PassAllFilter(bool),
    #[prost(bool, tag = "18")]
    BlockAllFilter(bool),
    #[prost(string, tag = "19")]
    ApplyLabelTransformer(String),
    #[prost(message, tag = "20")]
    ValueBitmaskFilter(ValueBitmask),
}

/// `RowFilter.Chain` and `RowFilter.Interleave`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Filters {
    /// One after the other, or beside each other.
    #[prost(message, repeated, tag = "1")]
    pub filters: Vec<RowFilter>,
}

/// `RowFilter.Condition`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Condition {
    /// What is asked.
    #[prost(message, optional, boxed, tag = "1")]
    pub predicate_filter: Option<Box<RowFilter>>,
    /// If anything comes out of it.
    #[prost(message, optional, boxed, tag = "2")]
    pub true_filter: Option<Box<RowFilter>>,
    /// If nothing does.
    #[prost(message, optional, boxed, tag = "3")]
    pub false_filter: Option<Box<RowFilter>>,
}

/// `ValueBitmask`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueBitmask {
    /// As long as the values that it lets through.
    #[prost(bytes = "bytes", tag = "1")]
    pub mask: Bytes,
}

/// `ReadRowsRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRowsRequest {
    /// Of this table,
    #[prost(string, tag = "1")]
    pub table_name: String,
    /// these rows; all without it.
    #[prost(message, optional, tag = "2")]
    pub rows: Option<data::RowSet>,
    /// What comes through.
    #[prost(message, optional, tag = "3")]
    pub filter: Option<RowFilter>,
    /// So many rows; 0 is no limit.
    #[prost(int64, tag = "4")]
    pub rows_limit: i64,
    /// By which profile.
    #[prost(string, tag = "5")]
    pub app_profile_id: String,
    /// 2 asks for statistics.
    #[prost(int32, tag = "6")]
    pub request_stats_view: i32,
    /// From the last row to the first.
    #[prost(bool, tag = "7")]
    pub reversed: bool,
    /// Instead of `table_name`.
    #[prost(string, tag = "9")]
    pub authorized_view_name: String,
    /// Likewise.
    #[prost(string, tag = "11")]
    pub materialized_view_name: String,
}

/// `Mutation`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mutation {
    /// What changes.
    #[prost(oneof = "data::mutation::Mutation", tags = "1, 2, 3, 4, 5, 6")]
    pub mutation: Option<data::mutation::Mutation>,
    /// Who made the timestamp: 2 is the client on its own, and then it may be cut to what the table keeps.
    #[prost(int32, tag = "7")]
    pub timestamp_origin: i32,
}

/// `MutateRowRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MutateRowRequest {
    /// Of this table,
    #[prost(string, tag = "1")]
    pub table_name: String,
    /// this row.
    #[prost(bytes = "bytes", tag = "2")]
    pub row_key: Bytes,
    /// One after the other, all or none.
    #[prost(message, repeated, tag = "3")]
    pub mutations: Vec<Mutation>,
    /// By which profile.
    #[prost(string, tag = "4")]
    pub app_profile_id: String,
    /// Instead of `table_name`.
    #[prost(string, tag = "6")]
    pub authorized_view_name: String,
}

/// `MutateRowsRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MutateRowsRequest {
    /// Of this table.
    #[prost(string, tag = "1")]
    pub table_name: String,
    /// Each on its own.
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<Entry>,
    /// By which profile.
    #[prost(string, tag = "3")]
    pub app_profile_id: String,
    /// Instead of `table_name`.
    #[prost(string, tag = "5")]
    pub authorized_view_name: String,
}

/// `MutateRowsRequest.Entry`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// Of this row.
    #[prost(bytes = "bytes", tag = "1")]
    pub row_key: Bytes,
    /// One after the other, all or none.
    #[prost(message, repeated, tag = "2")]
    pub mutations: Vec<Mutation>,
}

/// `SampleRowKeysRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SampleRowKeysRequest {
    /// Of this table.
    #[prost(string, tag = "1")]
    pub table_name: String,
    /// By which profile.
    #[prost(string, tag = "2")]
    pub app_profile_id: String,
    /// Instead of `table_name`.
    #[prost(string, tag = "4")]
    pub authorized_view_name: String,
    /// Likewise.
    #[prost(string, tag = "5")]
    pub materialized_view_name: String,
    /// Only borders within, and then its end.
    #[prost(message, optional, tag = "6")]
    pub row_range: Option<data::RowRange>,
}

/// `CheckAndMutateRowRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckAndMutateRowRequest {
    /// Of this table,
    #[prost(string, tag = "1")]
    pub table_name: String,
    /// this row.
    #[prost(bytes = "bytes", tag = "2")]
    pub row_key: Bytes,
    /// If anything comes through the filter.
    #[prost(message, repeated, tag = "4")]
    pub true_mutations: Vec<Mutation>,
    /// If nothing does.
    #[prost(message, repeated, tag = "5")]
    pub false_mutations: Vec<Mutation>,
    /// Asks whether the row has any cell without it.
    #[prost(message, optional, tag = "6")]
    pub predicate_filter: Option<RowFilter>,
    /// By which profile.
    #[prost(string, tag = "7")]
    pub app_profile_id: String,
    /// Instead of `table_name`.
    #[prost(string, tag = "9")]
    pub authorized_view_name: String,
}
