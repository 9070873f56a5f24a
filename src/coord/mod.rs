//! How a fleet agrees, through files that are written once on shared storage.
