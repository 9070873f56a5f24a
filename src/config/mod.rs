//! What an admin wants: TOML fragments, read strictly.
