//! Messages are counted before they are decoded: a mutation takes two bytes on the wire and hundreds in memory, so that a request of a
//! few MiB could take many GiB before anybody looked at its limits.
//!
//! ```text
//!   bytes ──▶ walk: fields on the paths that have rules ──too many, too long──▶ INVALID_ARGUMENT
//!                        └── else ──▶ prost
//! ```

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use crate::{admin, data, longrunning, newer};

/// Elements of a list, where the limit of the service is 100,000; and of lists that have no limit of their own.
const CHANGES: usize = 100_000;
const MANY: usize = 1_000_000;
const FEW: usize = 10_000;
/// Bytes of an authorized view, which is a document.
const VIEW: usize = 64 << 10;
/// Bytes of a filter.
const FILTER: usize = 20 << 10;

/// Tokens with which a stream goes on, and bytes of one.
const TOKENS: usize = 1_024;
const TOKEN: usize = 4 << 20;

/// What there may be of the fields with these numbers, one within the other.
pub enum Rule {
    /// So many, in the whole message.
    Count(&'static str, &'static [u32], usize),
    /// None with more bytes.
    Bytes(&'static str, &'static [u32], usize),
}

/// A message that says what is too much of it.
pub trait Bounded {
    /// What there may be.
    const RULES: &'static [Rule] = &[];
}

/// Says what is too much, if anything. What is no message is left to whoever decodes it.
pub fn check(message: &[u8], rules: &[Rule]) -> Result<(), String> {
    for rule in rules {
        let (field, path, most) = match rule {
            Rule::Count(field, path, most) | Rule::Bytes(field, path, most) => (field, *path, *most),
        };
        let mut found = 0;
        let fits = walk(message, path, &mut |bytes| match rule {
            Rule::Count(..) => {
                found += 1;
                found <= most
            }
            Rule::Bytes(..) => bytes.len() <= most,
        });
        if !fits {
            let unit = if matches!(rule, Rule::Bytes(..)) { "bytes" } else { "elements" };
            return Err(format!("Error in field '{field}' : it has too many {unit}; the limit is {most}"));
        }
    }
    Ok(())
}

/// Calls `each` with every field on the path; ends with false when it does.
fn walk(mut message: &[u8], path: &[u32], each: &mut impl FnMut(&[u8]) -> bool) -> bool {
    let Some((wanted, rest)) = path.split_first() else { return true };
    while !message.is_empty() {
        let Some(tag) = varint(&mut message) else { return true };
        let field = (tag >> 3) as u32;
        match tag & 7 {
            0 => {
                if varint(&mut message).is_none() {
                    return true;
                }
            }
            2 => {
                let len = varint(&mut message).and_then(|len| usize::try_from(len).ok());
                let Some((inside, after)) = len.and_then(|len| message.split_at_checked(len)) else { return true };
                message = after;
                if field == *wanted && !(if rest.is_empty() { each(inside) } else { walk(inside, rest, each) }) {
                    return false;
                }
            }
            kind @ (1 | 5) => {
                let Some(after) = message.get(if kind == 1 { 8 } else { 4 }..) else { return true };
                message = after;
            }
            _ => return true,
        }
    }
    true
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// prost's codec, which counts first.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Codec<T, U> {
        Codec(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Bounded + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as tonic::codec::Codec>::Encoder;
    type Decoder = Counting<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Counting(PhantomData)
    }
}

/// Decodes what is not too much.
pub struct Counting<U>(PhantomData<U>);

impl<U: Message + Default + Bounded> Decoder for Counting<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        use prost::bytes::Buf;
        let bytes = buf.copy_to_bytes(buf.remaining());
        check(&bytes, U::RULES).map_err(Status::invalid_argument)?;
        let message = U::decode(bytes).map_err(|error| Status::internal(format!("this is no message: {error}")))?;
        Ok(Some(message))
    }
}

impl Bounded for data::GenerateInitialChangeStreamPartitionsRequest {}

impl Bounded for data::ReadChangeStreamRequest {
    const RULES: &'static [Rule] =
        &[Rule::Count("continuation_tokens", &[6, 1], TOKENS), Rule::Bytes("continuation_tokens", &[6, 1, 2], TOKEN)];
}

impl Bounded for newer::ReadRowsRequest {
    const RULES: &'static [Rule] = &[
        Rule::Bytes("filter", &[3], FILTER),
        Rule::Count("rows.row_keys", &[2, 1], MANY),
        Rule::Count("rows.row_ranges", &[2, 2], CHANGES),
    ];
}

impl Bounded for newer::MutateRowRequest {
    const RULES: &'static [Rule] = &[Rule::Count("mutations", &[3], CHANGES)];
}

impl Bounded for newer::MutateRowsRequest {
    const RULES: &'static [Rule] =
        &[Rule::Count("entries", &[2], CHANGES), Rule::Count("entries.mutations", &[2, 2], CHANGES)];
}

impl Bounded for newer::CheckAndMutateRowRequest {
    const RULES: &'static [Rule] = &[
        Rule::Bytes("predicate_filter", &[6], FILTER),
        Rule::Count("true_mutations", &[4], CHANGES),
        Rule::Count("false_mutations", &[5], CHANGES),
    ];
}

impl Bounded for data::ReadModifyWriteRowRequest {
    const RULES: &'static [Rule] = &[Rule::Count("rules", &[3], CHANGES)];
}

impl Bounded for admin::ModifyColumnFamiliesRequest {
    const RULES: &'static [Rule] = &[Rule::Count("modifications", &[2], FEW)];
}

impl Bounded for admin::CreateTableRequest {
    const RULES: &'static [Rule] = &[
        Rule::Count("table.column_families", &[3, 3], FEW),
        Rule::Count("table.cluster_states", &[3, 2], FEW),
        Rule::Count("initial_splits", &[4], FEW),
    ];
}

/// Those that are small whatever they say.
macro_rules! unbounded {
    ($($message:ty),* $(,)?) => {
        $(impl Bounded for $message {})*
    };
}

unbounded!(
    newer::SampleRowKeysRequest,
    data::PingAndWarmRequest,
    admin::ListTablesRequest,
    admin::GetTableRequest,
    admin::DeleteTableRequest,
    admin::UndeleteTableRequest,
    admin::DropRowRangeRequest,
    admin::GenerateConsistencyTokenRequest,
    admin::CheckConsistencyRequest,
    admin::GetInstanceRequest,
    admin::ListInstancesRequest,
    admin::GetClusterRequest,
    admin::ListClustersRequest,
    admin::GetAppProfileRequest,
    admin::ListAppProfilesRequest,
    admin::DeleteAppProfileRequest,
    admin::DeleteInstanceRequest,
    admin::Cluster,
    admin::PartialUpdateClusterRequest,
    admin::GetAuthorizedViewRequest,
    admin::ListAuthorizedViewsRequest,
    admin::DeleteAuthorizedViewRequest,
    longrunning::ListOperationsRequest,
    longrunning::GetOperationRequest,
    longrunning::DeleteOperationRequest,
    longrunning::CancelOperationRequest,
    longrunning::WaitOperationRequest,
);

impl Bounded for admin::UpdateTableRequest {
    const RULES: &'static [Rule] = &[
        Rule::Count("table.column_families", &[1, 3], FEW),
        Rule::Count("table.cluster_states", &[1, 2], FEW),
        Rule::Count("update_mask.paths", &[2, 1], FEW),
    ];
}

impl Bounded for admin::Instance {
    const RULES: &'static [Rule] = &[Rule::Count("labels", &[5], FEW)];
}

impl Bounded for admin::PartialUpdateInstanceRequest {
    const RULES: &'static [Rule] =
        &[Rule::Count("instance.labels", &[1, 5], FEW), Rule::Count("update_mask.paths", &[2, 1], FEW)];
}

impl Bounded for admin::CreateAppProfileRequest {
    const RULES: &'static [Rule] = &[Rule::Count("app_profile.cluster_ids", &[3, 5, 1], FEW)];
}

impl Bounded for admin::UpdateAppProfileRequest {
    const RULES: &'static [Rule] =
        &[Rule::Count("app_profile.cluster_ids", &[1, 5, 1], FEW), Rule::Count("update_mask.paths", &[2, 1], FEW)];
}

impl Bounded for admin::CreateAuthorizedViewRequest {
    const RULES: &'static [Rule] = &[Rule::Bytes("authorized_view", &[3], VIEW)];
}

impl Bounded for admin::UpdateAuthorizedViewRequest {
    const RULES: &'static [Rule] =
        &[Rule::Bytes("authorized_view", &[1], VIEW), Rule::Count("update_mask.paths", &[2, 1], FEW)];
}

impl Bounded for admin::CreateInstanceRequest {
    const RULES: &'static [Rule] = &[Rule::Count("clusters", &[4], FEW), Rule::Count("instance.labels", &[3, 5], FEW)];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules<M: Bounded>(_: &M) -> &'static [Rule] {
        M::RULES
    }

    #[test]
    fn what_is_too_much_is_refused_before_it_is_decoded() {
        let with = |mutations: usize| newer::MutateRowRequest {
            mutations: vec![newer::Mutation::default(); mutations],
            ..newer::MutateRowRequest::default()
        };
        let (fits, many) = (with(CHANGES), with(CHANGES + 1));
        assert_eq!(check(&fits.encode_to_vec(), rules(&fits)), Ok(()));
        assert!(check(&many.encode_to_vec(), rules(&many)).unwrap_err().contains("'mutations'"));
        // Of all entries together.
        let entry =
            |count: usize| newer::Entry { mutations: vec![newer::Mutation::default(); count], ..Default::default() };
        let rows = newer::MutateRowsRequest { entries: vec![entry(60_000), entry(60_000)], ..Default::default() };
        assert!(check(&rows.encode_to_vec(), rules(&rows)).unwrap_err().contains("'entries.mutations'"));
        let value_regex_filter = newer::Filter::ValueRegexFilter(vec![b'a'; FILTER].into());
        let filter = Some(newer::RowFilter { filter: Some(value_regex_filter) });
        let read = newer::ReadRowsRequest { filter, ..Default::default() };
        assert!(check(&read.encode_to_vec(), rules(&read)).unwrap_err().contains("bytes"));
    }

    /// A value may be whatever bytes, also those of many fields.
    #[test]
    fn values_are_not_looked_into() {
        let value = [0x1a, 0x00].repeat(CHANGES + 1).into();
        let set = data::mutation::SetCell { value, ..Default::default() };
        let mutation = newer::Mutation { mutation: Some(data::mutation::Mutation::SetCell(set)), timestamp_origin: 0 };
        let request = newer::MutateRowRequest { mutations: vec![mutation], ..Default::default() };
        assert_eq!(check(&request.encode_to_vec(), rules(&request)), Ok(()));
        for garbage in [&b"\xff"[..], b"\x1a\xff\xff\xff\xff\x0f", b"\x1b", b"\x19\0"] {
            assert_eq!(check(garbage, rules(&request)), Ok(()), "left to whoever decodes it");
        }
    }
}
