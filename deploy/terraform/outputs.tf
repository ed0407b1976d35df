output "topic_arn" {
  description = "Where producers publish requests."
  value       = aws_sns_topic.requests.arn
}

output "queue_url" {
  description = "The queue of requests; a producer may also send to it directly."
  value       = aws_sqs_queue.requests.url
}

output "dead_letter_queue_url" {
  description = "Where requests go that nobody settled in time."
  value       = aws_sqs_queue.dead.url
}

output "table_name" {
  description = "The table of connections, for the functions behind $connect and $disconnect."
  value       = local.table_name
}

output "task_role_arn" {
  description = "What the tasks are."
  value       = aws_iam_role.task.arn
}
