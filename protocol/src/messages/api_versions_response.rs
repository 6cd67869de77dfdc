//! ApiVersionsResponse (key 18, v0–v5).
//!
//! Written by schemas/generate.py from ApiVersionsResponse.json of Kafka 4.4.0: change that program, not this file.

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::protocol::buf::ByteBuf;

use super::wire::{Form, Sink, Tags, Wire, message, read_tags, read_unknown_tags, setters};

/// ApiVersionsResponse (key 18, v0–v5).
#[derive(Debug, Clone, PartialEq)]
pub struct ApiVersionsResponse {
    /// The top-level error code.
    pub error_code: i16,
    /// The APIs supported by the broker.
    pub api_keys: Vec<ApiVersion>,
    /// The duration in milliseconds for which the request was throttled due to a quota violation, or zero if the request did not violate any quota.
    pub throttle_time_ms: i32,
    /// Features supported by the broker. Note: in v0-v3, features with MinSupportedVersion = 0 are omitted.
    pub supported_features: Vec<SupportedFeatureKey>,
    /// The monotonically increasing epoch for the finalized features information. Valid values are >= 0. A value of -1 is special and represents unknown epoch.
    pub finalized_features_epoch: i64,
    /// List of cluster-wide finalized features. The information is valid only if FinalizedFeaturesEpoch >= 0.
    pub finalized_features: Vec<FinalizedFeatureKey>,
    /// Set by a KRaft controller if the required configurations for ZK migration are present.
    pub zk_migration_ready: bool,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Default for ApiVersionsResponse {
    fn default() -> Self {
        Self {
            error_code: 0,
            api_keys: Default::default(),
            throttle_time_ms: 0,
            supported_features: Default::default(),
            finalized_features_epoch: -1,
            finalized_features: Default::default(),
            zk_migration_ready: false,
            unknown_tagged_fields: BTreeMap::new(),
        }
    }
}

impl Wire for ApiVersionsResponse {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.error_code.write(out, form)?;
        self.api_keys.write(out, form)?;
        if form.version >= 1 {
            self.throttle_time_ms.write(out, form)?;
        }
        let mut tags = Tags::new(&self.unknown_tagged_fields, form);
        if form.version >= 3 && !self.supported_features.is_empty() {
            tags.add(0, &self.supported_features)?;
        }
        if form.version >= 3 && self.finalized_features_epoch != -1 {
            tags.add(1, &self.finalized_features_epoch)?;
        }
        if form.version >= 3 && !self.finalized_features.is_empty() {
            tags.add(2, &self.finalized_features)?;
        }
        if form.version >= 3 && self.zk_migration_ready {
            tags.add(3, &self.zk_migration_ready)?;
        }
        tags.write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        let mut it = Self {
            error_code: Wire::read(input, form)?,
            api_keys: Wire::read(input, form)?,
            throttle_time_ms: if form.version >= 1 {
                Wire::read(input, form)?
            } else {
                0
            },
            supported_features: Default::default(),
            finalized_features_epoch: -1,
            finalized_features: Default::default(),
            zk_migration_ready: false,
            unknown_tagged_fields: BTreeMap::new(),
        };
        it.unknown_tagged_fields = read_tags(input, form, |tag, value| {
            match tag {
                0 if form.version >= 3 => it.supported_features = Wire::read(value, form)?,
                1 if form.version >= 3 => it.finalized_features_epoch = Wire::read(value, form)?,
                2 if form.version >= 3 => it.finalized_features = Wire::read(value, form)?,
                3 if form.version >= 3 => it.zk_migration_ready = Wire::read(value, form)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(it)
    }
}

setters! { ApiVersionsResponse {
    with_error_code => error_code: i16,
    with_api_keys => api_keys: Vec<ApiVersion>,
    with_throttle_time_ms => throttle_time_ms: i32,
    with_supported_features => supported_features: Vec<SupportedFeatureKey>,
    with_finalized_features_epoch => finalized_features_epoch: i64,
    with_finalized_features => finalized_features: Vec<FinalizedFeatureKey>,
    with_zk_migration_ready => zk_migration_ready: bool,
} }

/// The APIs supported by the broker.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ApiVersion {
    /// The API index.
    pub api_key: i16,
    /// The minimum supported version, inclusive.
    pub min_version: i16,
    /// The maximum supported version, inclusive.
    pub max_version: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for ApiVersion {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.api_key.write(out, form)?;
        self.min_version.write(out, form)?;
        self.max_version.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            api_key: Wire::read(input, form)?,
            min_version: Wire::read(input, form)?,
            max_version: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { ApiVersion {
    with_api_key => api_key: i16,
    with_min_version => min_version: i16,
    with_max_version => max_version: i16,
} }

/// Features supported by the broker. Note: in v0-v3, features with MinSupportedVersion = 0 are omitted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SupportedFeatureKey {
    /// The name of the feature.
    pub name: StrBytes,
    /// The minimum supported version for the feature.
    pub min_version: i16,
    /// The maximum supported version for the feature.
    pub max_version: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for SupportedFeatureKey {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.name.write(out, form)?;
        self.min_version.write(out, form)?;
        self.max_version.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            name: Wire::read(input, form)?,
            min_version: Wire::read(input, form)?,
            max_version: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { SupportedFeatureKey {
    with_name => name: StrBytes,
    with_min_version => min_version: i16,
    with_max_version => max_version: i16,
} }

/// List of cluster-wide finalized features. The information is valid only if FinalizedFeaturesEpoch >= 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FinalizedFeatureKey {
    /// The name of the feature.
    pub name: StrBytes,
    /// The cluster-wide finalized max version level for the feature.
    pub max_version_level: i16,
    /// The cluster-wide finalized min version level for the feature.
    pub min_version_level: i16,
    /// Tagged fields that are not known.
    pub unknown_tagged_fields: BTreeMap<i32, Bytes>,
}

impl Wire for FinalizedFeatureKey {
    fn write(&self, out: &mut impl Sink, form: Form) -> Result<()> {
        self.name.write(out, form)?;
        self.max_version_level.write(out, form)?;
        self.min_version_level.write(out, form)?;
        Tags::new(&self.unknown_tagged_fields, form).write(out)
    }

    fn read(input: &mut impl ByteBuf, form: Form) -> Result<Self> {
        Ok(Self {
            name: Wire::read(input, form)?,
            max_version_level: Wire::read(input, form)?,
            min_version_level: Wire::read(input, form)?,
            unknown_tagged_fields: read_unknown_tags(input, form)?,
        })
    }
}

setters! { FinalizedFeatureKey {
    with_name => name: StrBytes,
    with_max_version_level => max_version_level: i16,
    with_min_version_level => min_version_level: i16,
} }

message!(ApiVersionsResponse, versions 0 to 5, flexible from 3, headers 0 and 0);
