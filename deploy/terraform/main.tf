# What takes the place of a pushing function: a topic and a queue in, the table of connections, and Postrider between.

locals {
  table_name  = var.table_name != "" ? var.table_name : "${var.name}-connections"
  table_arn   = var.create_table ? aws_dynamodb_table.connections[0].arn : data.aws_dynamodb_table.connections[0].arn
  cluster_arn = var.cluster_arn != "" ? var.cluster_arn : aws_ecs_cluster.this[0].arn

  environment = merge(
    {
      APIGW_ENDPOINT         = var.apigw_endpoint
      CONNECTIONS_TABLE_NAME = local.table_name
      SQS_QUEUE_URL          = aws_sqs_queue.requests.url
      POSTRIDER_HTTP__LISTEN = "0.0.0.0:8080"
    },
    var.redis_url == "" ? {} : { POSTRIDER_ENGINE__TYPE = "redis" },
    var.environment,
  )
}

data "aws_region" "current" {}

data "aws_partition" "current" {}

# ---- in: topic, queue, dead-letter queue

resource "aws_sqs_queue" "dead" {
  name                      = "${var.name}-dead"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
  tags                      = var.tags
}

resource "aws_sqs_queue" "requests" {
  name                       = "${var.name}-requests"
  receive_wait_time_seconds  = 20
  visibility_timeout_seconds = var.visibility_timeout_seconds
  sqs_managed_sse_enabled    = true
  tags                       = var.tags

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    maxReceiveCount     = var.max_receive_count
  })
}

resource "aws_sns_topic" "requests" {
  name = "${var.name}-requests"
  tags = var.tags
}

resource "aws_sns_topic_subscription" "requests" {
  topic_arn            = aws_sns_topic.requests.arn
  protocol             = "sqs"
  endpoint             = aws_sqs_queue.requests.arn
  raw_message_delivery = var.raw_message_delivery
}

data "aws_iam_policy_document" "queue" {
  statement {
    sid       = "TheTopicAlone"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.requests.arn]

    principals {
      type        = "Service"
      identifiers = ["sns.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_sns_topic.requests.arn]
    }
  }
}

resource "aws_sqs_queue_policy" "requests" {
  queue_url = aws_sqs_queue.requests.id
  policy    = data.aws_iam_policy_document.queue.json
}

data "aws_iam_policy_document" "topic" {
  count = length(var.publisher_arns) > 0 ? 1 : 0

  statement {
    sid       = "Publishers"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.requests.arn]

    principals {
      type        = "AWS"
      identifiers = var.publisher_arns
    }
  }
}

resource "aws_sns_topic_policy" "requests" {
  count  = length(var.publisher_arns) > 0 ? 1 : 0
  arn    = aws_sns_topic.requests.arn
  policy = data.aws_iam_policy_document.topic[0].json
}

# ---- who is connected

resource "aws_dynamodb_table" "connections" {
  count        = var.create_table ? 1 : 0
  name         = local.table_name
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "user_id"
  range_key    = "connection_id"
  tags         = var.tags

  attribute {
    name = "user_id"
    type = "S"
  }

  attribute {
    name = "connection_id"
    type = "S"
  }
}

data "aws_dynamodb_table" "connections" {
  count = var.create_table ? 0 : 1
  name  = local.table_name
}

# ---- what a task may do, and nothing else

data "aws_iam_policy_document" "tasks" {
  statement {
    sid     = "AssumeByTasks"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "task" {
  statement {
    sid = "TakeRequests"
    actions = [
      "sqs:ReceiveMessage",
      "sqs:DeleteMessage",
      "sqs:ChangeMessageVisibility",
      "sqs:GetQueueAttributes",
    ]
    resources = [aws_sqs_queue.requests.arn]
  }

  statement {
    sid       = "ReadAndPruneConnections"
    actions   = ["dynamodb:Query", "dynamodb:Scan", "dynamodb:BatchWriteItem"]
    resources = [local.table_arn]
  }

  statement {
    sid       = "PushToConnections"
    actions   = ["execute-api:ManageConnections"]
    resources = ["${var.apigw_execution_arn}/${var.apigw_stage}/POST/@connections/*"]
  }
}

resource "aws_iam_role" "task" {
  name               = "${var.name}-task"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
  tags               = var.tags
}

resource "aws_iam_role_policy" "task" {
  name   = "push"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.task.json
}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-execution"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

# ---- the address of Redis has a password: it is no plain variable

resource "aws_ssm_parameter" "redis" {
  count = var.redis_url == "" ? 0 : 1
  name  = "/${var.name}/redis-url"
  type  = "SecureString"
  value = var.redis_url
  tags  = var.tags
}

data "aws_iam_policy_document" "secrets" {
  count = var.redis_url == "" ? 0 : 1

  statement {
    sid       = "ReadItsSecret"
    actions   = ["ssm:GetParameters"]
    resources = [aws_ssm_parameter.redis[0].arn]
  }
}

resource "aws_iam_role_policy" "secrets" {
  count  = var.redis_url == "" ? 0 : 1
  name   = "secrets"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.secrets[0].json
}

# ---- Postrider

resource "aws_cloudwatch_log_group" "this" {
  name              = "/postrider/${var.name}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_ecs_cluster" "this" {
  count = var.cluster_arn == "" ? 1 : 0
  name  = var.name
  tags  = var.tags
}

# It takes from the queue: nobody has to reach it.
resource "aws_security_group" "this" {
  name        = var.name
  description = "Postrider: out only"
  vpc_id      = var.vpc_id
  tags        = var.tags

  egress {
    description = "SQS, DynamoDB, API Gateway, Redis"
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  task_role_arn            = aws_iam_role.task.arn
  execution_role_arn       = aws_iam_role.execution.arn
  tags                     = var.tags

  container_definitions = jsonencode([{
    name        = "postrider"
    image       = var.image
    essential   = true
    command     = ["serve", "--preset", "apigw-pusher"]
    stopTimeout = 60
    environment = [for name, value in local.environment : { name = name, value = value }]
    secrets = var.redis_url == "" ? [] : [
      { name = "POSTRIDER_ENGINE__REDIS__URL", valueFrom = aws_ssm_parameter.redis[0].arn }
    ]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = data.aws_region.current.name
        awslogs-stream-prefix = "postrider"
      }
    }
  }])
}

resource "aws_ecs_service" "this" {
  name            = var.name
  cluster         = local.cluster_arn
  task_definition = aws_ecs_task_definition.this.arn
  desired_count   = var.desired_count
  launch_type     = "FARGATE"
  tags            = var.tags

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.this.id]
    assign_public_ip = var.assign_public_ip
  }
}
