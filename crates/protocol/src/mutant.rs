//! Deliberate faults, to check the checkers: each, switched on alone, must be caught by `sim` (docs/model-checking.md).
//!
//! The cores ask `planted.has(Mutant::…)` where a fault has its place. Without the feature `mutants`, which only
//! `sim/mutants` enables, that is `false` at compile time, and nothing of it is left in the binary (decision 0009).

/// Declares each fault with its home and its description, once.
macro_rules! mutants {
    ($($home:ident { $($name:ident: $what:literal,)* })*) => {
        /// A deliberate fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[doc = $what] $name,)*)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$($(Mutant::$name,)*)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $($(Mutant::$name => stringify!($name),)*)* }
            }

            /// What is wrong with it.
            pub const fn what(self) -> &'static str {
                match self { $($(Mutant::$name => $what,)*)* }
            }

            /// Where it lives.
            pub const fn home(self) -> Home {
                match self { $($(Mutant::$name => Home::$home,)*)* }
            }
        }
    };
}

/// Which core has the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// [`crate::Replica`].
    Replica,
    /// The storage node.
    Node,
    /// The master.
    Master,
}

mutants! {
    Replica {
        AckBeforeSync: "a follower acknowledges what its disk does not hold yet",
        AckBeforeSave: "a follower acknowledges in an epoch that its disk does not hold yet",
        GrantBeforeSave: "a follower grants leases in an epoch that its disk does not hold yet",
        CommitBeforeOwnSync: "the primary commits what its own disk does not hold yet",
        CommitWithoutSlowest: "the primary commits without its slowest member",
        CommitBeforeRemoval: "the primary commits without a member whose removal the master has not accepted yet",
        IgnoreProposedMembers: "members of an unanswered proposal do not count",
        EpochOfPrepareIgnored: "a follower takes entries of its primary's older epochs",
        EpochOfPreparedIgnored: "acknowledgements of older epochs count",
        AckWithoutComparing: "a follower acknowledges its tail before it has compared it with the new primary's",
        CommitWithoutComparing: "a follower applies its tail before it has compared it with the new primary's",
        KeepConflictingTail: "a follower keeps entries that differ from the primary's",
        AckBeyondGap: "a follower acknowledges entries behind a gap",
        TruncatingPrimary: "a new primary forgets what it does not know to be committed",
        ServeUnreconciled: "a new primary serves before its predecessors' entries are committed",
        SpeakBeforeSave: "a new primary speaks before its disk holds the epoch",
        ReturnInOldEpoch: "a primary that was started again goes on in its old epoch",
        ReadWithoutLease: "a primary serves reads without leases",
        ReadWithOneLease: "a primary serves reads while any one member grants a lease",
        LeaseFromReceipt: "a lease runs from when its grant arrived",
        ShortGrace: "a follower gives its primary up before the lease has ended",
        AbandonedNotKept: "a follower that gave its primary up obeys it again after a restart",
        AbandonedIgnored: "a follower obeys a primary that it has given up",
        EarlyPromotion: "a learner becomes a member before it has all that is committed",
        OldPromisesCount: "what a learner acknowledged still counts in the next epoch",
        UselessCheckpoint: "a learner takes a checkpoint that holds less than it has acknowledged",
        HandOverUnderWay: "a primary hands over while writes are under way",
        ReadResigned: "a primary that has given up its place goes on reading",
        FreshUnreached: "a replica counts as fresh what it has heard of and does not have",
    }
    Node {
        DifferedForgotten: "nobody remembers that a request's condition did not hold",
        RequestTwice: "a request that comes again is carried out again",
        CheckpointWithoutCompletions: "a checkpoint leaves the completion records out",
        VersionGoesBack: "a new primary does not respect its predecessors' versions",
        ApplyByRole: "a secondary applies something else than the primary",
        TrimBeyondFlush: "the log loses entries that are in no table yet",
        RemoveOnOldRelease: "a node removes a replica that was spare, though its group needs it again",
        ListenWhileAdopting: "a learner takes entries while a checkpoint replaces its rows",
        StandWhatever: "a node grants leases for all that rest, also for replicas that have given their primary up",
        FreshOnArrival: "rows count as fresh as of when the primary's word arrived",
        WriteBehindSplit: "a tablet takes writes behind the entry that splits it",
        HeirForgetsRequests: "the heirs of a split tablet have no completion records",
        DamageIgnored: "a replica whose tables are damaged stays in its group",
        WriteWhenClosed: "a tablet that was closed to become part of another one takes writes",
        BatchUnawaited: "a condition does not wait for the batches that stand before it",
        ChangesByClock: "a page of changes says that it is complete up to the date",
        PartAgain: "a part of a batch that was carried out as a whole is carried out again",
    }
    Master {
        AnyEpoch: "a configuration is accepted whatever it succeeds",
        DecideBeforeCommit: "a configuration is announced before consensus has committed it",
        SilentLearnerChange: "another learner comes without another epoch",
        RemoveUnheard: "a member is moved away before it has said that it follows the present epoch",
        DrainingIsAble: "a node that is being emptied gets replicas",
        ParentStays: "the map keeps a tablet beside its heirs",
    }
}

/// Which fault a core has: none, but in `make mutants`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Planted {
    #[cfg(feature = "mutants")]
    mutant: Option<Mutant>,
}

impl Planted {
    /// No fault.
    pub const NONE: Planted = Planted {
        #[cfg(feature = "mutants")]
        mutant: None,
    };
}

#[cfg(feature = "mutants")]
impl Planted {
    /// This one fault.
    pub const fn only(mutant: Mutant) -> Planted {
        Planted { mutant: Some(mutant) }
    }

    /// Is it this one?
    pub fn has(self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

#[cfg(not(feature = "mutants"))]
impl Planted {
    /// Is it this one? It is none.
    pub const fn has(self, _: Mutant) -> bool {
        false
    }
}
