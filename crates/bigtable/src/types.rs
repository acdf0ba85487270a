//! Types of families: what their cells add up, in Google's words and in ours.
//!
//! The state of an aggregate is a cell like any other, of 8 bytes, big-endian; its timestamp belongs to its identity, so that a
//! column may have several.

use model::Aggregate;

use crate::admin::r#type::aggregate::{Aggregator, Max, Min, Sum};
use crate::admin::r#type::int64::{self, encoding};
use crate::admin::{self, Type, r#type::Kind};
use crate::{Code, Problem};

/// What a new family of this type adds up; nothing, if it has none.
pub fn aggregate(family: &str, value_type: Option<&Type>) -> Result<Option<Aggregate>, Problem> {
    let wrong = |what: &str| Problem::invalid(format!("Error in field 'value_type' : family {family:?} : {what}"));
    let Some(value_type) = value_type else { return Ok(None) };
    let Some(Kind::AggregateType(aggregate)) = &value_type.kind else {
        return Err(wrong("a family has an aggregate type, or none"));
    };
    let found = match &aggregate.aggregator {
        Some(Aggregator::Sum(_)) => Aggregate::Sum,
        Some(Aggregator::Min(_)) => Aggregate::Min,
        Some(Aggregator::Max(_)) => Aggregate::Max,
        Some(Aggregator::HllppUniqueCount(_)) => {
            let what = "hllpp_unique_count is not served; sum, min and max of int64 are";
            return Err(Problem::unimplemented(format!("Error in field 'value_type' : family {family:?} : {what}")));
        }
        None => return Err(wrong("no aggregator is set; there are sum, min and max")),
    };
    let Some(Type { kind: Some(Kind::Int64Type(input)) }) = aggregate.input_type.as_deref() else {
        return Err(wrong("what is added up is of int64_type"));
    };
    match input.encoding.as_ref().and_then(|encoding| encoding.encoding.as_ref()) {
        None | Some(encoding::Encoding::BigEndianBytes(_)) => Ok(Some(found)),
        Some(encoding::Encoding::OrderedCodeBytes(_)) => Err(wrong("what is added up is in big_endian_bytes")),
    }
}

/// The type of a family, as it is shown.
pub fn value_type(aggregate: Aggregate) -> Type {
    let int64 = || {
        let bytes = encoding::BigEndianBytes::default();
        let encoding = int64::Encoding { encoding: Some(encoding::Encoding::BigEndianBytes(bytes)) };
        let int64 = admin::r#type::Int64 { encoding: Some(encoding) };
        Some(Box::new(Type { kind: Some(Kind::Int64Type(int64)) }))
    };
    let aggregator = match aggregate {
        Aggregate::Sum => Aggregator::Sum(Sum {}),
        Aggregate::Min => Aggregator::Min(Min {}),
        Aggregate::Max => Aggregator::Max(Max {}),
    };
    let found = admin::r#type::Aggregate { input_type: int64(), state_type: int64(), aggregator: Some(aggregator) };
    Type { kind: Some(Kind::AggregateType(Box::new(found))) }
}

/// What a cell of such a family says. Others than this API's clients may have written something else there.
pub fn state(family: &str, value: &[u8]) -> Result<i64, Problem> {
    match value.try_into() {
        Ok(bytes) => Ok(i64::from_be_bytes(bytes)),
        Err(_) => {
            let what =
                format!("a cell of family {family:?} has {} bytes; the state of an aggregate has 8", value.len());
            Err(Problem { code: Code::FailedPrecondition, message: what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_back_as_they_were_written() {
        for how in [Aggregate::Sum, Aggregate::Min, Aggregate::Max] {
            assert_eq!(aggregate("f", Some(&value_type(how))), Ok(Some(how)));
        }
        assert_eq!(aggregate("f", None), Ok(None));
    }

    #[test]
    fn only_numbers_add_up() {
        let of = |input_type: Option<Kind>, aggregator| {
            let input_type = input_type.map(|kind| Box::new(Type { kind: Some(kind) }));
            let found = admin::r#type::Aggregate { input_type, state_type: None, aggregator };
            aggregate("f", Some(&Type { kind: Some(Kind::AggregateType(Box::new(found))) })).map_err(|it| it.code)
        };
        let int64 = || Some(Kind::Int64Type(admin::r#type::Int64::default()));
        let sum = || Some(Aggregator::Sum(Sum {}));
        assert_eq!(of(int64(), sum()), Ok(Some(Aggregate::Sum)), "big-endian unless it says otherwise");
        assert_eq!(of(int64(), None), Err(Code::InvalidArgument));
        assert_eq!(of(None, sum()), Err(Code::InvalidArgument));
        assert_eq!(of(Some(Kind::BoolType(admin::r#type::Bool {})), sum()), Err(Code::InvalidArgument));
        let ordered = encoding::Encoding::OrderedCodeBytes(encoding::OrderedCodeBytes {});
        let ordered = admin::r#type::Int64 { encoding: Some(int64::Encoding { encoding: Some(ordered) }) };
        assert_eq!(of(Some(Kind::Int64Type(ordered)), sum()), Err(Code::InvalidArgument));
        let count = admin::r#type::aggregate::HyperLogLogPlusPlusUniqueCount {};
        assert_eq!(of(int64(), Some(Aggregator::HllppUniqueCount(count))), Err(Code::Unimplemented));
        let plain = Type { kind: Some(Kind::BytesType(admin::r#type::Bytes::default())) };
        assert_eq!(aggregate("f", Some(&plain)).map_err(|it| it.code), Err(Code::InvalidArgument));
    }

    #[test]
    fn a_state_has_eight_bytes() {
        assert_eq!(state("f", &7i64.to_be_bytes()), Ok(7));
        assert_eq!(state("f", b"7").map_err(|it| it.code), Err(Code::FailedPrecondition));
    }
}
