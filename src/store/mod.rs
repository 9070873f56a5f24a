//! The releases on this node, and which of them is active.
