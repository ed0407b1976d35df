//! The two tables as they are found, and as they are made.

use super::calls::Calls;
use super::fault;
use crate::registry::RegistryFault;
use postrider_aws::dynamodb::error::BuildError;
use postrider_aws::dynamodb::types::{
    AttributeDefinition, BillingMode, IndexStatus, KeySchemaElement, KeyType, ScalarAttributeType,
    TableDescription, TableStatus,
};
use postrider_aws::trouble;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// An index whose hash key is the instance, where there is one.
    pub index: Option<String>,
    /// Whether there is a table of leases.
    pub has_leases: bool,
}

/// Looks at the tables; makes those that are missing if they are to be made.
pub(super) async fn look(calls: &Calls, create: bool) -> Result<Shape, RegistryFault> {
    let names = &calls.names;
    let leases = names.table.leases();
    let rows = found_or_made(calls, names.table.as_str(), &names.user, create).await?;
    let Some(rows) = rows else {
        let table = names.table.as_str();
        return Err(RegistryFault::Refused(format!(
            "there is no table {table}; it is made where registry.create is true"
        )));
    };
    let held = found_or_made(calls, &leases, &names.instance, create).await?;
    for (table, key) in [(Some(&rows), &names.user), (held.as_ref(), &names.instance)] {
        table.map_or(Ok(()), |table| judge(table, key))?;
    }
    Ok(Shape {
        index: index_of(&rows, &names.instance),
        has_leases: held.is_some(),
    })
}

async fn found_or_made(
    calls: &Calls,
    table: &str,
    key: &str,
    create: bool,
) -> Result<Option<TableDescription>, RegistryFault> {
    let found = described(calls, table).await?;
    if found.is_some() || !create {
        return Ok(found);
    }
    make(calls, table, key).await?;
    let made = described(calls, table).await?;
    let unready = || RegistryFault::Away(format!("the table {table} is being made"));
    made.map(Some).ok_or_else(unready)
}

async fn described(calls: &Calls, table: &str) -> Result<Option<TableDescription>, RegistryFault> {
    let asked = calls.client().await.describe_table().table_name(table).send();
    match asked.await.map_err(|error| trouble(&error)) {
        Ok(answer) => Ok(answer.table),
        Err(trouble) if trouble.is(&["ResourceNotFoundException"]) => Ok(None),
        Err(trouble) => Err(fault(trouble)),
    }
}

/// With one key, and paid by the request. Whoever comes first makes it.
async fn make(calls: &Calls, table: &str, key: &str) -> Result<(), RegistryFault> {
    let wrong = |error: BuildError| RegistryFault::Refused(error.to_string());
    let schema = KeySchemaElement::builder()
        .attribute_name(key)
        .key_type(KeyType::Hash)
        .build()
        .map_err(wrong)?;
    let attribute = AttributeDefinition::builder()
        .attribute_name(key)
        .attribute_type(ScalarAttributeType::S)
        .build()
        .map_err(wrong)?;
    let create = calls
        .client()
        .await
        .create_table()
        .table_name(table)
        .key_schema(schema)
        .attribute_definitions(attribute)
        .billing_mode(BillingMode::PayPerRequest);
    match create.send().await.map_err(|error| trouble(&error)) {
        Ok(_) => Ok(()),
        Err(trouble) if trouble.is(&["ResourceInUseException"]) => Ok(()),
        Err(trouble) => Err(fault(trouble)),
    }
}

/// Whether it can be used now, and has this key, a text, and no other.
fn judge(table: &TableDescription, key: &str) -> Result<(), RegistryFault> {
    let name = table.table_name().unwrap_or_default();
    if !matches!(
        table.table_status(),
        Some(TableStatus::Active | TableStatus::Updating)
    ) {
        return Err(RegistryFault::Away(format!("the table {name} is not ready yet")));
    }
    match table.key_schema() {
        [only] if only.attribute_name() == key && is_text(table, key) => Ok(()),
        _ => Err(RegistryFault::Refused(format!(
            "the table {name} must have the key {key}, a string, and no sort key"
        ))),
    }
}

fn is_text(table: &TableDescription, attribute: &str) -> bool {
    let mut attributes = table.attribute_definitions().iter();
    attributes.any(|one| one.attribute_name() == attribute && *one.attribute_type() == ScalarAttributeType::S)
}

/// An index that lists the users of an instance.
fn index_of(table: &TableDescription, instance: &str) -> Option<String> {
    let fits = |index: &&postrider_aws::dynamodb::types::GlobalSecondaryIndexDescription| {
        let mut keys = index.key_schema().iter();
        let is_by_instance =
            keys.any(|key| *key.key_type() == KeyType::Hash && key.attribute_name() == instance);
        is_by_instance && index.index_status() == Some(&IndexStatus::Active)
    };
    let mut indexes = table.global_secondary_indexes().iter();
    let index = indexes.find(fits).filter(|_| is_text(table, instance))?;
    index.index_name().map(str::to_owned)
}
