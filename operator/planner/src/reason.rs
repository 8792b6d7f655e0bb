use std::fmt;

/// Why something is as it is: condition reasons, event reasons and metric labels, one closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    Resolving,
    Unresolvable,
    UnsupportedModel,
    Placing,
    InsufficientMemory,
    InsufficientDisk,
    NoMatchingNode,
    NodeCordoned,
    DriverUnsupported,
    ClockDegraded,
    Downloading,
    DownloadFailed,
    ChecksumMismatch,
    Loading,
    Serving,
    Draining,
    Swapping,
    Surging,
    RolledBack,
    ProgressDeadlineExceeded,
    NodeUnreachable,
    CrashLooping,
    EngineStalled,
    GpuFault,
    Refused,
    NotReturned,
    NameTaken,
    ScaledToZero,
    Invalid,
}

impl Reason {
    /// Every reason, for metrics that want a label for each.
    pub const ALL: [Self; 29] = [
        Self::Resolving,
        Self::Unresolvable,
        Self::UnsupportedModel,
        Self::Placing,
        Self::InsufficientMemory,
        Self::InsufficientDisk,
        Self::NoMatchingNode,
        Self::NodeCordoned,
        Self::DriverUnsupported,
        Self::ClockDegraded,
        Self::Downloading,
        Self::DownloadFailed,
        Self::ChecksumMismatch,
        Self::Loading,
        Self::Serving,
        Self::Draining,
        Self::Swapping,
        Self::Surging,
        Self::RolledBack,
        Self::ProgressDeadlineExceeded,
        Self::NodeUnreachable,
        Self::CrashLooping,
        Self::EngineStalled,
        Self::GpuFault,
        Self::Refused,
        Self::NotReturned,
        Self::NameTaken,
        Self::ScaledToZero,
        Self::Invalid,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolving => "Resolving",
            Self::Unresolvable => "Unresolvable",
            Self::UnsupportedModel => "UnsupportedModel",
            Self::Placing => "Placing",
            Self::InsufficientMemory => "InsufficientMemory",
            Self::InsufficientDisk => "InsufficientDisk",
            Self::NoMatchingNode => "NoMatchingNode",
            Self::NodeCordoned => "NodeCordoned",
            Self::DriverUnsupported => "DriverUnsupported",
            Self::ClockDegraded => "ClockDegraded",
            Self::Downloading => "Downloading",
            Self::DownloadFailed => "DownloadFailed",
            Self::ChecksumMismatch => "ChecksumMismatch",
            Self::Loading => "Loading",
            Self::Serving => "Serving",
            Self::Draining => "Draining",
            Self::Swapping => "Swapping",
            Self::Surging => "Surging",
            Self::RolledBack => "RolledBack",
            Self::ProgressDeadlineExceeded => "ProgressDeadlineExceeded",
            Self::NodeUnreachable => "NodeUnreachable",
            Self::CrashLooping => "CrashLooping",
            Self::EngineStalled => "EngineStalled",
            Self::GpuFault => "GpuFault",
            Self::Refused => "Refused",
            Self::NotReturned => "NotReturned",
            Self::NameTaken => "NameTaken",
            Self::ScaledToZero => "ScaledToZero",
            Self::Invalid => "Invalid",
        }
    }

    /// Whether it names a step on the way, not a trouble.
    pub const fn is_progress(self) -> bool {
        matches!(
            self,
            Self::Resolving
                | Self::Placing
                | Self::Downloading
                | Self::Loading
                | Self::Serving
                | Self::Draining
                | Self::Swapping
                | Self::Surging
                | Self::ScaledToZero
        )
    }

    /// The reason of this name, if it is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
