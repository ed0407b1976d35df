//! A table of connections in DynamoDB.
//!
//! Reads are eventually consistent, as they are where the connections are written down: who connects while a broadcast
//! is under way may be missed by it. Asks only for the two keys. Repeats nothing: the caller does.

use super::{Connection, ConnectionTable, Page, Segment, TableFault};
use async_trait::async_trait;
use postrider_aws::dynamodb::Client;
use postrider_aws::dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use postrider_aws::{Account, Reach, Trouble, trouble};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// How the table and its keys are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableNames {
    /// The table.
    pub table: String,
    /// Its hash key, a string: the user.
    pub user: String,
    /// Its range key, a string: the connection.
    pub connection: String,
}

/// The table.
pub struct DynamoTable {
    account: Arc<Account>,
    reach: Reach,
    client: OnceCell<Client>,
    names: TableNames,
    /// Most rows of a page.
    page: i32,
}

type Item = HashMap<String, AttributeValue>;

/// Stands for the keys in expressions, where their names could be reserved words.
const USER: &str = "#u";
const CONNECTION: &str = "#c";

impl DynamoTable {
    /// This table, read in pages of at most so many rows. Nothing is reached before the first call.
    pub fn new(account: Arc<Account>, reach: Reach, names: TableNames, page: usize) -> DynamoTable {
        DynamoTable {
            account,
            reach,
            client: OnceCell::new(),
            names,
            page: i32::try_from(page.max(1)).unwrap_or(i32::MAX),
        }
    }

    async fn client(&self) -> &Client {
        let make = || self.account.dynamodb(&self.reach);
        self.client.get_or_init(make).await
    }

    fn key(&self, connection: &Connection) -> Item {
        let text = |text: &String| AttributeValue::S(text.clone());
        HashMap::from([
            (self.names.user.clone(), text(&connection.user)),
            (self.names.connection.clone(), text(&connection.id)),
        ])
    }

    fn connection(&self, mut item: Item) -> Option<Connection> {
        let mut text = |name: &str| match item.remove(name) {
            Some(AttributeValue::S(text)) => Some(text),
            _ => None,
        };
        let user = text(&self.names.user)?;
        let id = text(&self.names.connection)?;
        Some(Connection { user, id })
    }

    fn page(&self, items: Vec<Item>, last: Option<Item>) -> Result<Page, TableFault> {
        let unlike = || TableFault::Refused(format!("its keys are not the strings {:?}", self.names));
        let connections = items.into_iter().map(|item| self.connection(item));
        let connections = connections.collect::<Option<_>>().ok_or_else(unlike)?;
        let after = match last {
            Some(key) if !key.is_empty() => Some(self.connection(key).ok_or_else(unlike)?),
            _ => None,
        };
        Ok(Page { connections, after })
    }
}

#[async_trait]
impl ConnectionTable for DynamoTable {
    async fn of_user(&self, user: &str, after: Option<&Connection>) -> Result<Page, TableFault> {
        let query = self
            .client()
            .await
            .query()
            .table_name(&self.names.table)
            .key_condition_expression("#u = :user")
            .projection_expression("#u, #c")
            .expression_attribute_names(USER, &self.names.user)
            .expression_attribute_names(CONNECTION, &self.names.connection)
            .expression_attribute_values(":user", AttributeValue::S(user.to_owned()))
            .limit(self.page)
            .set_exclusive_start_key(after.map(|key| self.key(key)));
        let answer = query.send().await.map_err(|error| fault(trouble(&error)))?;
        self.page(answer.items.unwrap_or_default(), answer.last_evaluated_key)
    }

    async fn of_segment(&self, segment: Segment, after: Option<&Connection>) -> Result<Page, TableFault> {
        let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let scan = self
            .client()
            .await
            .scan()
            .table_name(&self.names.table)
            .projection_expression("#u, #c")
            .expression_attribute_names(USER, &self.names.user)
            .expression_attribute_names(CONNECTION, &self.names.connection)
            .segment(number(segment.number))
            .total_segments(number(segment.of))
            .limit(self.page)
            .set_exclusive_start_key(after.map(|key| self.key(key)));
        let answer = scan.send().await.map_err(|error| fault(trouble(&error)))?;
        self.page(answer.items.unwrap_or_default(), answer.last_evaluated_key)
    }

    async fn delete(&self, connections: &[Connection]) -> Result<Vec<Connection>, TableFault> {
        let request = |connection: &Connection| {
            let delete = DeleteRequest::builder()
                .set_key(Some(self.key(connection)))
                .build();
            let delete = delete.map_err(|error| TableFault::Refused(error.to_string()))?;
            Ok(WriteRequest::builder().delete_request(delete).build())
        };
        let requests = connections.iter().map(request).collect::<Result<Vec<_>, _>>()?;
        let write = self
            .client()
            .await
            .batch_write_item()
            .request_items(&self.names.table, requests);
        let answer = write.send().await.map_err(|error| fault(trouble(&error)))?;
        let left = answer
            .unprocessed_items
            .unwrap_or_default()
            .into_values()
            .flatten();
        let left = left.filter_map(|request| self.connection(request.delete_request?.key));
        Ok(left.collect())
    }
}

fn fault(trouble: Trouble) -> TableFault {
    match trouble {
        Trouble::Throttled(text) => TableFault::Throttled(text),
        Trouble::Refused { text, .. } => TableFault::Refused(text),
        other => TableFault::Away(other.to_string()),
    }
}
