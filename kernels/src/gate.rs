/// What a gate becomes before it multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GateFunction {
    /// `g · sigmoid(g)`
    #[default]
    Silu,
    /// `0.5 · g · (1 + tanh(√(2/π) · (g + 0.044715 · g³)))`: GELU as Hendrycks and Gimpel (2016) approximate it.
    GeluTanh,
}

impl GateFunction {
    /// As `cu/common/gate.cuh` knows it.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Silu => 0,
            Self::GeluTanh => 1,
        }
    }
}
