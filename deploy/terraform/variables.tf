variable "name" {
  description = "The name of everything that is made, and a prefix where there are several of a kind."
  type        = string
  default     = "postrider-pusher"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,40}$", var.name))
    error_message = "Letters a-z, digits and hyphens, at most 41, a letter first."
  }
}

variable "tags" {
  description = "Tags of everything that is made."
  type        = map(string)
  default     = {}
}

variable "apigw_endpoint" {
  description = "The address of the WebSocket API's stage, https:// or wss://: what the preset calls APIGW_ENDPOINT."
  type        = string
}

variable "apigw_execution_arn" {
  description = "The WebSocket API's execution ARN (aws_apigatewayv2_api.*.execution_arn), to which pushing is allowed."
  type        = string
}

variable "apigw_stage" {
  description = "The stage whose connections may be pushed to."
  type        = string
}

variable "create_table" {
  description = "Whether the table of connections is made here. False: table_name is one that exists."
  type        = bool
  default     = true
}

variable "table_name" {
  description = "The table of connections. Empty: the name of the module with -connections."
  type        = string
  default     = ""
}

variable "visibility_timeout_seconds" {
  description = "How long a request that nobody settled stays hidden. Postrider prolongs it while it pushes."
  type        = number
  default     = 30
}

variable "max_receive_count" {
  description = "How often a request is given out before it moves to the dead-letter queue."
  type        = number
  default     = 5
}

variable "raw_message_delivery" {
  description = "Whether the topic hands requests on without its envelope. Postrider reads both."
  type        = bool
  default     = true
}

variable "publisher_arns" {
  description = "Principals that may publish to the topic, beside those whom IAM allows. Empty: none."
  type        = list(string)
  default     = []
}

variable "image" {
  description = "The container image of Postrider."
  type        = string
}

variable "desired_count" {
  description = "How many tasks run. They share the queue."
  type        = number
  default     = 2
}

variable "cpu" {
  description = "CPU units of a task."
  type        = number
  default     = 512
}

variable "memory" {
  description = "Memory of a task, in MiB."
  type        = number
  default     = 1024
}

variable "vpc_id" {
  description = "The VPC of the tasks."
  type        = string
}

variable "subnet_ids" {
  description = "The subnets of the tasks: with a way to SQS, DynamoDB and execute-api, by NAT or endpoints."
  type        = list(string)
}

variable "assign_public_ip" {
  description = "Whether tasks have public addresses, where the subnets have no NAT."
  type        = bool
  default     = false
}

variable "cluster_arn" {
  description = "The ECS cluster. Empty: one is made."
  type        = string
  default     = ""
}

variable "redis_url" {
  description = "A Redis for all tasks (engine.redis.url). Empty: each keeps its dead letters in its own storage, which ends with the task."
  type        = string
  default     = ""
  sensitive   = true
}

variable "environment" {
  description = "Further variables of the tasks, such as POSTRIDER_CHANNELS__PUSH__CONCURRENCY."
  type        = map(string)
  default     = {}
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30
}
