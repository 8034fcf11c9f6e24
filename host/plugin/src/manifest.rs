//! Converts a manifest of the contract to a manifest of the host.

use lantern_core::{
    Attributes, EventTime, FieldKind, FieldSpec, Manifest, ManifestError, Member, Merge, OnFailure,
    TableSpec,
};

use crate::bindings::v0_2::lantern::projection::types;

/// Converts `manifest` and checks it. No option is defined yet, so every option in a manifest is an
/// error.
///
/// # Errors
/// Returns [`ManifestError`] for the rule that is broken.
pub(crate) fn convert(manifest: types::Manifest) -> Result<Manifest, ManifestError> {
    if let Some((name, _)) = manifest.options.first() {
        return Err(ManifestError::Option(name.clone()));
    }
    let tables = manifest.tables.into_iter().map(table).collect::<Result<_, _>>()?;
    let manifest = Manifest {
        name: manifest.name,
        version: manifest.version,
        description: manifest.description,
        subscribes: manifest.subscribes,
        attributes: attributes(manifest.attributes),
        members: manifest.members.into_iter().map(member).collect(),
        tables,
        emits: manifest.emits,
        cycle_depth_max: manifest.cycle_depth_max,
        event_time: manifest.event_time.map(|time| EventTime {
            allowed_lateness_us: time.allowed_lateness,
            tick_us: time.tick,
        }),
        on_failure: match manifest.on_failure {
            types::OnFailure::ParkSubject => OnFailure::ParkSubject,
            types::OnFailure::ParkEvent => OnFailure::ParkEvent,
            types::OnFailure::Halt => OnFailure::Halt,
        },
        parameters: manifest.parameters,
    };
    manifest.check()?;
    Ok(manifest)
}

/// Returns the name of the first field in which two manifests differ; `None` if they are equal.
pub(crate) fn difference(a: &Manifest, b: &Manifest) -> Option<&'static str> {
    // All fields are listed. If a new field is not compared, the compiler reports it.
    let Manifest {
        name,
        version,
        description,
        subscribes,
        attributes,
        members,
        tables,
        emits,
        cycle_depth_max,
        event_time,
        on_failure,
        parameters,
    } = a;
    [
        ("name", *name == b.name),
        ("version", *version == b.version),
        ("description", *description == b.description),
        ("list of subscriptions", *subscribes == b.subscribes),
        ("set of attributes", *attributes == b.attributes),
        ("list of members", *members == b.members),
        ("list of tables", *tables == b.tables),
        ("list of emitted types", *emits == b.emits),
        ("depth of cycles", *cycle_depth_max == b.cycle_depth_max),
        ("event time", *event_time == b.event_time),
        ("rule for failures", *on_failure == b.on_failure),
        ("schema of parameters", *parameters == b.parameters),
    ]
    .into_iter()
    .find_map(|(field, same)| (!same).then_some(field))
}

fn attributes(flags: types::Attributes) -> Attributes {
    Attributes {
        id: flags.contains(types::Attributes::ID),
        source: flags.contains(types::Attributes::SOURCE),
        subject: flags.contains(types::Attributes::SUBJECT),
        tenant: flags.contains(types::Attributes::TENANT),
        dataschema: flags.contains(types::Attributes::DATASCHEMA),
        datacontenttype: flags.contains(types::Attributes::DATACONTENTTYPE),
        extensions: flags.contains(types::Attributes::EXTENSIONS),
        data: flags.contains(types::Attributes::DATA),
    }
}

fn member(member: types::Member) -> Member {
    Member { name: member.name, kind: kind(member.kind) }
}

fn table(table: types::Table) -> Result<TableSpec, ManifestError> {
    if let Some((name, _)) = table.options.first() {
        return Err(ManifestError::Option(format!("{}.{name}", table.name)));
    }
    Ok(TableSpec {
        name: table.name,
        description: table.description,
        public: table.public,
        per_tenant: table.per_tenant,
        fields: table.fields.into_iter().map(field).collect(),
        newest_by: table.newest_by,
        retention_us: table.retention,
    })
}

fn field(field: types::Field) -> FieldSpec {
    FieldSpec {
        name: field.name,
        kind: kind(field.kind),
        unit: field.unit,
        merge: match field.merge {
            types::Merge::Same => Merge::Same,
            types::Merge::Sum => Merge::Sum,
            types::Merge::Min => Merge::Min,
            types::Merge::Max => Merge::Max,
            types::Merge::Newest => Merge::Newest,
            types::Merge::Sketch => Merge::Sketch,
        },
    }
}

fn kind(kind: types::FieldKind) -> FieldKind {
    match kind {
        types::FieldKind::Integer => FieldKind::Integer,
        types::FieldKind::Number => FieldKind::Number,
        types::FieldKind::Text => FieldKind::Text,
        types::FieldKind::Boolean => FieldKind::Boolean,
        types::FieldKind::Timestamp => FieldKind::Timestamp,
        types::FieldKind::Json => FieldKind::Json,
        types::FieldKind::Distinct => FieldKind::Distinct,
        types::FieldKind::Percentiles => FieldKind::Percentiles,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named() {
        let a = Manifest { name: "a".into(), ..Manifest::default() };
        assert_eq!(difference(&a, &a.clone()), None);
        let other = |change: fn(&mut Manifest)| {
            let mut b = a.clone();
            change(&mut b);
            difference(&a, &b)
        };
        assert_eq!(other(|m| m.version = "2".into()), Some("version"));
        assert_eq!(other(|m| m.tables.push(TableSpec::default())), Some("list of tables"));
        assert_eq!(other(|m| m.attributes.id = true), Some("set of attributes"));
        assert_eq!(other(|m| m.parameters = Some("{}".into())), Some("schema of parameters"));
    }
}
